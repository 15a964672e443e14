"""The records of all wafers in one database: what the parts call."""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, select, text, update

from fabwafer.errors import FabwaferError
from fabwafer.records import alerting, query, schema, store, trial
from fabwafer.records.engine import connect, reading, writing
from fabwafer.records.tables import reviews, rollouts, shots

_CHUNK = 1000


class UnknownWaferError(FabwaferError):
    """Nothing was received about the wafer that was named."""


class RolloutChangedError(FabwaferError):
    """Somebody else said who is to serve in the meantime; what was to be said then may be wrong now."""


class Records:
    """The records in a database. Safe to use from several threads; each call is one transaction.

    Every method raises RecordsUnavailableError when the database cannot answer now and the call may succeed later.
    Anything else that storing raises is the fault of a message in the batch, and nothing of the batch was stored.

    Args:
        url: `sqlite:///FILE`, or `postgresql://...` with or without a driver's name. It is connected when first used.
    """

    def __init__(self, url: str) -> None:
        self._engine = connect(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Checks that the tables fit this program.

        Raises:
            SchemaError: They do not; the text says what to do.
        """
        schema.check(self._engine)

    def store_shots(self, shots: Sequence[store.Shot]) -> int:
        """Stores images as received; returns how many were new. The same file and moment of capture is stored once."""
        with writing(self._engine) as connection:
            return store.store_shots(connection, shots)

    def store_predictions(self, predictions: Sequence[store.ReceivedPrediction]) -> store.StoredPredictions:
        """Stores predictions and, in the same transaction, the alerts that the new ones raise."""
        with writing(self._engine) as connection:
            return store.store_predictions(connection, predictions, alerting.read_thresholds(connection))

    def pending_alerts(self, limit: int = 100) -> list[alerting.PendingAlert]:
        """Reads alerts to send: those with the fewest attempts first, the oldest of them first."""
        with reading(self._engine) as connection:
            return alerting.read_pending(connection, limit)

    def count_pending_alerts(self) -> int:
        """Counts the alerts that are not sent yet, however many they are."""
        with reading(self._engine) as connection:
            return alerting.count_pending(connection)

    def mark_alert_sent(self, ids: Sequence[str]) -> None:
        """Marks alerts as sent."""
        with writing(self._engine) as connection:
            alerting.mark_sent(connection, ids)

    def mark_alert_failed(self, ids: Sequence[str], error: str) -> None:
        """Counts a failed attempt to send; the alerts stay pending."""
        with writing(self._engine) as connection:
            alerting.mark_failed(connection, ids, error)

    def threshold(self, fab: str, camera: str, label: str) -> float:
        """The probability from which a class alerts on a camera.

        The most specific that is set wins: camera and class, camera, fab and class, class, fab, all; else 0.5.
        """
        with reading(self._engine) as connection:
            return alerting.read_thresholds(connection)(fab, camera, label)

    def set_threshold(
        self, value: float, fab: str | None = None, camera: str | None = None, label: str | None = None
    ) -> None:
        """Sets the threshold of a fab, camera or class, or of all of them.

        Raises:
            ValueError: It is not within 0 to 1, or a camera is named without its fab.
        """
        with writing(self._engine) as connection:
            alerting.write_threshold(connection, value, fab, camera, label)

    def wafers(
        self,
        fab: str | None = None,
        camera: str | None = None,
        imgid: str | None = None,
        *,
        context: Mapping[str, str] | None = None,
        newest_first: bool = False,
    ) -> Iterator[query.WaferRecord]:
        """Yields every record that matches, a page in memory at a time, without the image files.

        Args:
            fab: None for all, as the others.
            camera: Of any fab, unless one is given.
            imgid: Of any camera, unless one is given.
            context: Lot, slot, product, tool, step, notch, as received with an image or a prediction.
            newest_first: By the last receipt; else by fab, camera and imgid.
        """
        return query.stream(self._engine, query.Filter(fab, camera, imgid, context), newest_first=newest_first)

    def count(
        self,
        fab: str | None = None,
        camera: str | None = None,
        imgid: str | None = None,
        *,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """Counts the records that `wafers` would yield."""
        with reading(self._engine) as connection:
            return query.count(connection, query.Filter(fab, camera, imgid, context))

    def image(self, fab: str, camera: str, imgid: str) -> bytes | None:
        """The image file of a wafer's newest shot; None when there is none, or it was forgotten."""
        with reading(self._engine) as connection:
            return query.newest_file(connection, fab, camera, imgid)

    def forget_images(self, received_before: int) -> int:
        """Forgets image files that were received before a moment (ms), except those of reviewed wafers.

        Returns:
            How many were forgotten. Everything else that is known of their wafers stays.
        """
        old = (
            select(shots.c.id)
            .where(shots.c.file.is_not(None), shots.c.received < received_before)
            .where(shots.c.wafer_id.not_in(select(reviews.c.wafer_id)))
            .limit(_CHUNK)
        )
        forgotten = 0
        while True:  # in steps, so that storing never waits for long
            with writing(self._engine) as connection:
                done = connection.execute(update(shots).where(shots.c.id.in_(old)).values(file=None)).rowcount
            forgotten += done
            if done < _CHUNK:
                return forgotten

    def add_review(
        self,
        fab: str,
        camera: str,
        imgid: str,
        *,
        label: str,
        reviewer: str,
        note: str | None = None,
        at: int | None = None,
    ) -> None:
        """Adds what a person says that a wafer shows; the last one counts, the earlier ones stay.

        Args:
            fab: With camera and imgid, the wafer.
            camera: See fab.
            imgid: See fab.
            label: The class.
            reviewer: Who says so.
            note: Anything else.
            at: When, ms; now if not given.

        Raises:
            UnknownWaferError: Nothing was received about that wafer.
        """
        with writing(self._engine) as connection:
            wafer_id = query.wafer_id(connection, fab, camera, imgid)
            if wafer_id is None:
                raise UnknownWaferError(f"no wafer {imgid!r} of camera {camera!r} in fab {fab!r} was received")
            row = {"wafer_id": wafer_id, "label": label, "reviewer": reviewer, "note": note, "time": _moment(at)}
            connection.execute(reviews.insert().values(row))

    def rollout(self) -> query.Rollout | None:
        """Who is to serve, or None when nobody said so yet."""
        with reading(self._engine) as connection:
            return query.newest_rollout(connection)

    def rollouts(self) -> list[query.Rollout]:
        """All that was said about who is to serve, the last word first."""
        with reading(self._engine) as connection:
            return query.all_rollouts(connection)

    def compared(self, version: str) -> list[trial.Compared]:
        """What a version said on trial, beside what the champion said of the same images."""
        with reading(self._engine) as connection:
            return trial.compared(connection, version)

    def set_rollout(
        self,
        champion: str,
        *,
        author: str,
        candidate: str | None = None,
        share: float = 0.0,
        at: int | None = None,
        after: int | None = None,
    ) -> None:
        """Says who is to serve from now on; what was said before stays readable.

        Args:
            champion: The model version that serves.
            author: Who says so.
            candidate: The model version on trial.
            share: Of the images, how many go to the candidate as well, 0 to 1.
            at: When, ms; now if not given.
            after: The number of the last word that this one was decided on (`Rollout.number`; 0 where nobody had said
                anything); by default it is not asked whether another came in between.

        Raises:
            RolloutChangedError: Another word came after that; nothing was written.
            ValueError: The share is not within 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share of 0 to 1, got {share}")
        row = {"champion": champion, "candidate": candidate, "share": share, "author": author, "time": _moment(at)}
        with writing(self._engine) as connection:
            if after is not None:
                _refuse_if_changed(connection, after)
            connection.execute(rollouts.insert().values(row))


def _refuse_if_changed(connection: Connection, after: int) -> None:
    """Raises RolloutChangedError where another word came in between; until the transaction ends, none can."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        connection.execute(text("LOCK TABLE rollouts IN EXCLUSIVE MODE"))
    last = query.newest_rollout(connection)
    if last is not None and last.number != after:
        raise RolloutChangedError(
            f"{last.author} has just said who is to serve (champion {last.champion}, "
            f"candidate {last.candidate or 'none'}): look again, and repeat it if it is still right"
        )


def _moment(at: int | None) -> int:
    return round(time.time() * 1000) if at is None else at
