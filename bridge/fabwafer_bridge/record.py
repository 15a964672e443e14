"""Record: images and predictions from their streams into the records, in batches."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import structlog
from nats.aio.msg import Msg

from fabwafer.defects import NOT_A_WAFER, SHIPPED_CLASSES
from fabwafer.messages.bodies import Image, Prediction
from fabwafer.records import ReceivedPrediction, Records, RecordsUnavailableError, Shot, StoredPredictions
from fabwafer_bridge import dead_letters, metrics, streams
from fabwafer_bridge.intake import RECEIVED, SEQUENCE
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.puller import Puller

BATCH: Final = 256
LONGEST_PAUSE: Final = 5.0
GATHER: Final = 0.1
"""Seconds in which the next batch gathers: a transaction costs the same for one row as for fifty, and takes the
processor from the predictions, which nobody waits for the records with."""
REFUSED: Final = "refused_by_records"
OTHER_CLASS: Final = "other"
"""What a class is counted as that nobody here knows: a device's text would make a time series for each of its ideas."""

Row = TypeVar("Row")

log = structlog.get_logger()


class RecordConsumer:
    """Stores what comes out of one stream.

    Args:
        puller: The stream's messages.
        publisher: Keeps as dead letters what is not a message.
        lock: Held by one writer at a time; the records have one writer in a process anyway.
    """

    def __init__(self, puller: Puller, publisher: Publisher, lock: asyncio.Lock) -> None:
        self._puller = puller
        self._publisher = publisher
        self._lock = lock

    async def run(self, read: Callable[[Msg], Row], store: Callable[[Sequence[Row]], object]) -> None:
        """Stores rows as long as messages come; acknowledged when they are committed.

        Args:
            read: Makes a row of a message; raises ValueError when it is none.
            store: Writes rows in one transaction; called in a thread.
        """
        while True:
            batch = await self._puller.batch(BATCH)
            async with self._puller.kept(batch):
                rows: list[tuple[Msg, Row]] = []
                for message in batch:
                    if message.metadata.num_delivered and message.metadata.num_delivered > 1:
                        metrics.REDELIVERIES.labels(streams.RECORD).inc()
                    try:
                        rows.append((message, read(message)))
                    except ValueError as error:
                        await self._refuse(message, f"expected a message as the bridge writes it: {error}")
                if rows:
                    await self._stored(rows, store)
            await asyncio.sleep(GATHER)

    async def _stored(self, rows: Sequence[tuple[Msg, Row]], store: Callable[[Sequence[Row]], object]) -> None:
        """Stores rows together; where the database refuses them for what they are, each alone, so that one is found."""
        pause = 0.1
        while True:
            try:
                async with self._lock:
                    await asyncio.to_thread(store, [row for _, row in rows])
            except RecordsUnavailableError as error:
                log.warning("not recorded yet", rows=len(rows), reason=str(error)[:300], pause=pause)
                metrics.MESSAGES.labels(streams.RECORD, "retried").inc(len(rows))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception as error:  # the database is there, so the fault is in a row
                if len(rows) == 1:
                    await self._refuse(rows[0][0], f"the records refuse it: {error}")
                    return
                for row in rows:
                    await self._stored([row], store)
                return
            else:
                metrics.MESSAGES.labels(streams.RECORD, "passed").inc(len(rows))
                return

    async def _refuse(self, message: Msg, reason: str) -> None:
        letter = dead_letters.letter(
            streams.RECORD,
            subject=message.subject,
            origin=message.subject,
            payload=message.data,
            reason=reason,
            code=REFUSED,
            message_id=f"{message.metadata.stream}:{message.metadata.sequence.stream}",
            headers=message.headers or {},
        )
        await self._publisher.store([letter])
        log.warning("refused", subject=message.subject, reason=reason)
        metrics.DEAD_LETTERS.labels(REFUSED).inc()
        metrics.MESSAGES.labels(streams.RECORD, "dead").inc()


def read_shot(message: Msg) -> Shot:
    """Makes a row of a message of IMAGES."""
    image = Image.model_validate_json(message.data)
    received, sequence = _receipt(message, image.timestamp)
    return Shot(image=image, data=image.file(), received=received, sequence=sequence)


def read_prediction(message: Msg) -> ReceivedPrediction:
    """Makes a row of a message of PREDICTIONS."""
    prediction = Prediction.model_validate_json(message.data)
    received, sequence = _receipt(message, prediction.timestamp)
    return ReceivedPrediction(prediction=prediction, received=received, sequence=sequence)


def read_shadow(message: Msg) -> ReceivedPrediction:
    """Makes a row of a message of SHADOW_PREDICTIONS: what a candidate says counts for nothing, and raises no alert."""
    return replace(read_prediction(message), shadow=True)


def store_predictions(records: Records, raised: Callable[[], None]) -> Callable[[Sequence[ReceivedPrediction]], None]:
    """Makes the function that stores predictions and counts what is new.

    Args:
        records: Where they go; an alert is decided in the same transaction.
        raised: Called when there are alerts to send; from the thread that stores.
    """
    known = {*SHIPPED_CLASSES, NOT_A_WAFER}

    def store(rows: Sequence[ReceivedPrediction]) -> None:
        stored: StoredPredictions = records.store_predictions(rows)
        known.update(row.prediction.prediction for row in rows if row.prediction.source == "cluster")
        for row in stored.new:
            said = row.prediction
            model = said.model if said.source == "cluster" else "device"
            label = said.prediction if said.prediction in known else OTHER_CLASS
            if row.shadow:
                metrics.SHADOW_PREDICTIONS.labels(model, label).inc()
                continue
            metrics.PREDICTIONS.labels(said.fab, said.camera, model, label).inc()
            metrics.PROBABILITY.labels(model, label).observe(said.probability)
        for fab, label in stored.alerts:
            metrics.ALERTS.labels(fab, label if label in known else OTHER_CLASS).inc()
        if stored.alerts:
            raised()

    return store


def _receipt(message: Msg, otherwise: int) -> tuple[int, int]:
    headers = message.headers or {}
    return int(headers.get(RECEIVED, otherwise)), int(headers.get(SEQUENCE, 0))
