"""Record: images and predictions from their streams into the records, in batches."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from nats.aio.msg import Msg
from sqlalchemy.exc import DataError, IntegrityError

from fabwafer.defects import NOT_A_WAFER, SHIPPED_CLASSES
from fabwafer.messages.bodies import ImageMetadata, read_stored_prediction
from fabwafer.messages.headers import MESSAGE, Receipt
from fabwafer.messages.topics import SMOKE_TEST_FAB
from fabwafer.records import ReceivedPrediction, Records, Shot, StoredPredictions
from fabwafer_bridge import metrics
from fabwafer_bridge.consumer import Consumer, Refused
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.streams import ConsumerName

BATCH: Final = 256
GATHER: Final = 0.1
"""Batching window in seconds: a transaction costs the same for one row as for fifty, and fewer of them leave CPU for
predictions."""
OTHER_CLASS: Final = "other"
"""The metrics' class for names that the cluster does not know: a device's free text must not make time series."""

Row = TypeVar("Row")


class RecordConsumer(Consumer[Row], Generic[Row]):
    """Stores the messages of one stream; each is acknowledged when it is committed.

    Args:
        name: Its label in the metrics.
        puller: The stream's messages.
        publisher: Stores dead letters.
        lock: Held by one writer at a time; the records have one writer in a process anyway.
        read: Makes a row of a message; raises MessageRefusedError when it is none.
        store: Writes rows in one transaction; called in a thread.
    """

    def __init__(
        self,
        name: ConsumerName,
        puller: Puller,
        publisher: Publisher,
        lock: asyncio.Lock,
        read: Callable[[Msg], Row],
        store: Callable[[Sequence[Row]], object],
    ) -> None:
        super().__init__(name, puller, publisher, most=BATCH, pause=GATHER)
        self._lock = lock
        self._row, self._store = read, store

    def read(self, message: Msg) -> Row:
        """Make a row of a message."""
        return self._row(message)

    async def handle(self, items: Sequence[Row]) -> None:
        """Store rows in one transaction."""
        async with self._lock:
            await asyncio.to_thread(self._store, items)
        self.count(Result.PASSED, len(items))

    def blame(self, message: Msg, error: Exception) -> Refused:
        """Return why a message is refused: a value that the database can never hold is a kind of its own."""
        if isinstance(error, (DataError, IntegrityError)):
            return Refused(message, f"the records refuse it: {error}", Reason.REFUSED_BY_RECORDS)
        return super().blame(message, error)


def read_shot(message: Msg) -> Shot:
    """Make a row of a message of IMAGES."""
    headers = message.headers or {}
    image = ImageMetadata.from_header(headers.get(MESSAGE))
    receipt = Receipt.from_headers(headers, image.timestamp)
    return Shot(image=image, data=message.data, received=receipt.received, sequence=receipt.sequence)


def read_prediction(message: Msg) -> ReceivedPrediction:
    """Make a row of a message of PREDICTIONS."""
    return _received(message, shadow=False)


def read_shadow(message: Msg) -> ReceivedPrediction:
    """Make a row of a message of SHADOW_PREDICTIONS: a candidate's prediction does not count, and raises no alert."""
    return _received(message, shadow=True)


def _received(message: Msg, *, shadow: bool) -> ReceivedPrediction:
    prediction = read_stored_prediction(message.data)
    receipt = Receipt.from_headers(message.headers, prediction.timestamp)
    return ReceivedPrediction(prediction, receipt.received, receipt.sequence, shadow)


def store_predictions(records: Records, raised: Callable[[], None]) -> Callable[[Sequence[ReceivedPrediction]], None]:
    """Return the function that stores predictions and counts those that are new.

    Args:
        records: Where they go; an alert is decided in the same transaction.
        raised: Called when there are alerts to send; from the thread that stores.
    """
    known = {*SHIPPED_CLASSES, NOT_A_WAFER}

    def store(rows: Sequence[ReceivedPrediction]) -> None:
        stored: StoredPredictions = records.store_predictions(rows)
        known.update(row.prediction.prediction for row in rows if row.prediction.source == "cluster")
        for row in stored.new:
            prediction = row.prediction
            if prediction.fab == SMOKE_TEST_FAB:
                continue
            model = prediction.model if prediction.source == "cluster" else "device"
            label = prediction.prediction if prediction.prediction in known else OTHER_CLASS
            if row.shadow:
                metrics.SHADOW_PREDICTIONS.labels(model, label).inc()
                continue
            metrics.PREDICTIONS.labels(prediction.fab, prediction.camera, model, label).inc()
            metrics.PROBABILITY.labels(model, label).observe(prediction.probability)
        for fab, label in stored.alerts:
            metrics.ALERTS.labels(fab, label if label in known else OTHER_CLASS).inc()
        if stored.alerts:
            raised()

    return store
