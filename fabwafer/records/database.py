"""The records of all wafers in one database: what the parts call. The SQL is in the modules beside this one."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from sqlalchemy import Connection, RowMapping

from fabwafer.defects import canonical_name
from fabwafer.maps.counts import MapCounts
from fabwafer.records import (
    alerts,
    drawings,
    dump,
    embeddings,
    history,
    predictions,
    reviews,
    rollouts,
    schema,
    shots,
    thresholds,
    trials,
    wafers,
)
from fabwafer.records.alerts import PendingAlert, StoredPredictions
from fabwafer.records.drawings import Drawing
from fabwafer.records.dump import Moment, Written
from fabwafer.records.engine import connect, reading, snapshot, writing
from fabwafer.records.image_archives import ArchiveReader
from fabwafer.records.keys import WaferKey
from fabwafer.records.predictions import ReceivedPrediction
from fabwafer.records.reviews import Review
from fabwafer.records.rollouts import Rollout
from fabwafer.records.shots import Shot
from fabwafer.records.tables import SCHEMA
from fabwafer.records.thresholds import Threshold
from fabwafer.records.trials import Compared
from fabwafer.records.wafers import ALL, Filter, Page, Place, WaferRecord, WaferRow

if TYPE_CHECKING:
    from fabwafer.records.embeddings import Block

_WALK: Final = 500
"""Wafers a transaction when all are read: a slow reader holds nothing up."""

T = TypeVar("T")


class Records:
    """The records in a database. Safe to use from several threads; each call is one transaction.

    Every method raises RecordsUnavailableError when the database cannot answer now and the call may succeed later.
    Anything else that storing raises is the fault of a message in the batch, and nothing of the batch was stored.

    Args:
        url: `sqlite:///FILE`, or `postgresql://...` with or without a driver's name. It is connected when first used.

    Raises:
        DatabaseUrlError: It is the URL of no database that there is a driver for.
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
        """Close all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Check that the tables fit this program.

        Raises:
            SchemaError: They do not; the text says what to do.
        """
        schema.check(self._engine)

    # What is received

    def store_shots(self, received: Sequence[Shot]) -> int:
        """Store images as received; return how many were new. The same file and moment of capture is stored once."""
        with writing(self._engine) as connection:
            return shots.store_shots(connection, received)

    def store_predictions(self, received: Sequence[ReceivedPrediction]) -> StoredPredictions:
        """Store predictions and, in the same transaction, the alerts that the new ones raise."""
        with writing(self._engine) as connection:
            stored = predictions.store_predictions(connection, received)
            raised = alerts.raise_alerts(connection, stored.serving, thresholds.threshold_finder(connection))
        return StoredPredictions(stored.new, raised)

    def forget_images(self, received_before: int, at_most: int = 1000) -> int:
        """Delete some of the image files that were received before a moment (ms), except those of reviewed wafers.

        Returns:
            How many were deleted; 0 when none are left. Everything else that is known of their wafers stays.
        """
        with writing(self._engine) as connection:
            return shots.delete_files(connection, received_before, at_most)

    def forget_wafers(self, received_before: int, at_most: int = 200) -> int:
        """Delete some of the wafers of which nothing was received since a moment (ms), with all that is known of them.

        Reviewed wafers stay, and those with an alert that is not sent yet.

        Returns:
            How many were deleted; 0 when none are left.
        """
        with writing(self._engine) as connection:
            return wafers.delete_old_wafers(connection, received_before, at_most)

    # What another system received earlier

    def import_predictions(self, received: Sequence[ReceivedPrediction]) -> int:
        """Store predictions of the past, which alert nobody any more; return how many were new.

        Those that are stored already, and their wafers, stay as they are.
        """
        with writing(self._engine) as connection:
            return len(predictions.store_predictions(connection, history.new_predictions(connection, received)).new)

    def import_shots(self, received: Sequence[Shot], counts: Mapping[WaferKey, MapCounts]) -> int:
        """Store images of the past; return how many were new.

        Args:
            received: An image that its wafer has already is not stored again, whatever its timestamp.
            counts: What was counted on the maps; goes to the newest device's prediction of a wafer that nothing was
                counted on yet.
        """
        with writing(self._engine) as connection:
            stored = shots.store_shots(connection, history.new_shots(connection, received))
            history.add_counts(connection, counts)
        return stored

    def import_reviews(self, found: Sequence[tuple[WaferKey, Review]]) -> list[str]:
        """Store reviews of the past, each unless its wafer has a later one.

        Returns:
            For each review: `new`, `known` (that review is there), `later` (a later one is), or `unknown` (nothing was
            received about the wafer).
        """
        with writing(self._engine) as connection:
            return history.add_reviews(connection, found)

    def capture_times(self, keys: Collection[WaferKey]) -> dict[WaferKey, int]:
        """Read the timestamp of each wafer's newest device's prediction, ms, where it has one."""
        with reading(self._engine) as connection:
            return history.capture_times(connection, keys)

    def wafers_of_images(self, imgids: Collection[str]) -> dict[str, list[WaferKey]]:
        """Read which wafers have each imgid."""
        with reading(self._engine) as connection:
            return history.wafers_of_images(connection, imgids)

    # Alerts and their thresholds

    def pending_alerts(self, limit: int = 100) -> list[PendingAlert]:
        """Read alerts to send: those with the fewest attempts first, the oldest of them first."""
        with reading(self._engine) as connection:
            return alerts.read_pending(connection, limit)

    def count_pending_alerts(self) -> int:
        """Count the alerts that are not sent yet, however many they are."""
        with reading(self._engine) as connection:
            return alerts.count_pending(connection)

    def mark_alert_sent(self, ids: Sequence[str]) -> None:
        """Mark alerts as sent."""
        with writing(self._engine) as connection:
            alerts.mark_sent(connection, ids)

    def mark_alert_failed(self, ids: Sequence[str], error: str) -> None:
        """Count a failed attempt to send; the alerts stay pending."""
        with writing(self._engine) as connection:
            alerts.mark_failed(connection, ids, error)

    def threshold(self, fab: str, camera: str, label: str) -> float:
        """Return the probability from which a class alerts on a camera.

        The most specific that is set wins: camera and class, camera, fab and class, class, fab, all; else 0.5.
        """
        with reading(self._engine) as connection:
            return thresholds.threshold_finder(connection)(fab, camera, label)

    def thresholds(self) -> list[Threshold]:
        """Read all thresholds that were set, the most general first."""
        with reading(self._engine) as connection:
            return thresholds.read_thresholds(connection)

    def set_threshold(
        self, value: float, fab: str | None = None, camera: str | None = None, label: str | None = None
    ) -> None:
        """Set the threshold of a fab, camera or class, or of all of them.

        Raises:
            ThresholdRefusedError: It is not within 0 to 1, or a camera is named without its fab.
        """
        with writing(self._engine) as connection:
            thresholds.write_threshold(connection, Threshold(fab, camera, label, value))

    def remove_threshold(
        self, fab: str | None = None, camera: str | None = None, label: str | None = None
    ) -> Threshold:
        """Remove the threshold of exactly this fab, camera and class, and return it.

        Raises:
            ThresholdRefusedError: None is set for them.
        """
        with writing(self._engine) as connection:
            return thresholds.delete_threshold(connection, fab, camera, label)

    # What the colours of drawings mean

    def drawings(self) -> list[Drawing]:
        """Read what is set for the drawings of fabs and cameras."""
        with reading(self._engine) as connection:
            return drawings.read_drawings(connection)

    def set_drawing(self, drawing: Drawing) -> None:
        """Set what the colours of a camera's or a fab's drawings mean."""
        with writing(self._engine) as connection:
            drawings.write_drawing(connection, drawing)

    def remove_drawing(self, fab: str, camera: str | None = None) -> bool:
        """Remove the setting of a camera, or of a fab; return whether there was one."""
        with writing(self._engine) as connection:
            return drawings.delete_drawing(connection, fab, camera)

    # Dumps

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        """Look at all tables as they are now, for a dump, while others go on writing.

        Raises:
            SchemaError: The tables are not exactly those of this program.
        """
        with snapshot(self._engine) as connection:
            schema.check_same(connection)  # the first question, which fixes the moment
            yield Moment(connection, SCHEMA)

    def load(self, folder: Path, images: ArchiveReader, done: Written) -> None:
        """Load a dump into empty tables, in one transaction; the rollout of a system's set-up gives way.

        Args:
            folder: The dump.
            images: Has the images of its shots.
            done: Called with a table's name and how many of its rows are done, from time to time.

        Raises:
            ImageDamagedError: An image is not what it was; nothing was written.
            RecordsNotEmptyError: The tables hold something; nothing was written.
            SchemaError: The tables are not exactly those of this program; nothing was written.
        """
        with writing(self._engine) as connection:
            schema.check_same(connection)
            dump.load_dump(connection, folder, images, done)

    def holds(self, folder: Path) -> bool:
        """Return whether the tables hold exactly the rows of a dump."""
        with snapshot(self._engine) as connection:
            return dump.holds_dump(connection, folder)

    def obstacles(self) -> list[str]:
        """Return what is in the way of loading a dump, such as `3 wafers`; nothing where the tables are empty."""
        with snapshot(self._engine) as connection:
            return dump.obstacles(connection)

    # Wafers

    def page(
        self, wanted: Filter = ALL, *, cursor: str | None = None, size: int = 50, newest_first: bool = True
    ) -> Page:
        """Read one page of a list.

        A wafer about which something is received while somebody turns the pages becomes the newest: with the newest
        first it may be missed on later pages, but none is shown twice.

        Args:
            wanted: Which wafers.
            cursor: The one that came with the page before; None for the first page.
            size: The most rows of the page, 1 or more.
            newest_first: By the last receipt; else by fab, camera and imgid.

        Raises:
            CursorError: No page in this order gave that cursor.
        """
        after = wafers.read_cursor(cursor, newest_first=newest_first)
        with reading(self._engine) as connection:
            found, end = wafers.find_wafers(connection, wanted, after, size, newest_first=newest_first)
            return Page(wafers.read_rows(connection, found), wafers.write_cursor(end))

    def rows(self, wanted: Filter = ALL, *, newest_first: bool = False) -> Iterator[WaferRow]:
        """Yield the row of every wafer that matches, a page in memory at a time.

        Args:
            wanted: Which wafers.
            newest_first: By the last receipt; else by fab, camera and imgid.
        """
        return self._walk(wafers.read_rows, wanted, newest_first=newest_first)

    def wafers(self, wanted: Filter = ALL, *, newest_first: bool = False) -> Iterator[WaferRecord]:
        """Yield all that is known of every wafer that matches, without the image files, a page in memory at a time.

        Args:
            wanted: Which wafers.
            newest_first: By the last receipt; else by fab, camera and imgid.
        """
        return self._walk(wafers.read_records, wanted, newest_first=newest_first)

    def wafer(self, fab: str, camera: str, imgid: str) -> WaferRecord | None:
        """Read all that is known of a wafer, without the image files; None where nothing was received about it."""
        with reading(self._engine) as connection:
            found = wafers.find_wafer(connection, (fab, camera, imgid))
            return next(iter(wafers.read_records(connection, found)), None)

    def count(self, wanted: Filter = ALL) -> int:
        """Count the wafers that match."""
        with reading(self._engine) as connection:
            return wafers.count_wafers(connection, wanted)

    def labels(self) -> set[str]:
        """Return the classes that predictions or reviews name."""
        with reading(self._engine) as connection:
            return wafers.find_labels(connection)

    def image(self, fab: str, camera: str, imgid: str) -> bytes | None:
        """Read the image file of a wafer's newest shot; None when there is none, or it was deleted by age."""
        with reading(self._engine) as connection:
            return shots.read_newest_file(connection, (fab, camera, imgid))

    def delete_wafers(self, wanted: Filter) -> int:
        """Delete all that is known of the wafers that match: shots, predictions, embeddings, alerts and reviews.

        Returns:
            How many wafers were deleted.
        """
        with writing(self._engine) as connection:
            return wafers.delete_wafers(connection, wanted)

    def embeddings(self, model: str, wanted: Filter = ALL, *, size: int = 10_000) -> "Iterator[Block]":
        """Yield the embeddings of the wafers whose current prediction is of a model, in blocks.

        Needs NumPy, which the `records` extra does not bring.

        Args:
            model: Embeddings of two models cannot be compared.
            wanted: Which wafers.
            size: The most rows of a block.

        Yields:
            `(ids, matrix)`, the wafers' ids (`WaferRow.id`, growing) as int64 [n] and their embeddings as
            float32 [n, d], n at least 1; d is the first one's width, and any of another width is left out.
        """
        conditions = wafers.conditions_of(wanted)
        after = 0
        width: int | None = None
        while True:
            with reading(self._engine) as connection:
                rows, last = embeddings.read_block(connection, model, conditions, after=after, size=size)
            if last is None:
                return
            after = last
            if rows and width is None:
                width = len(rows[0][1])
            if rows := [row for row in rows if len(row[1]) == width]:
                yield embeddings.unpack_block(rows)

    # Reviews

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
        """Add a person's review of a wafer; the last one counts, the earlier ones stay.

        Args:
            fab: With camera and imgid, the wafer.
            camera: See fab.
            imgid: See fab.
            label: The class that the wafer shows, in any case where it is a known one.
            reviewer: Who reviewed it.
            note: Anything else.
            at: When, ms; now if not given.

        Raises:
            UnknownWaferError: Nothing was received about that wafer.
        """
        with writing(self._engine) as connection:
            review = Review(canonical_name(label), reviewer, _moment(at), note)
            reviews.add_review(connection, (fab, camera, imgid), review)

    # Rollouts and trials

    def rollout(self) -> Rollout | None:
        """Read which versions are to serve, or None when nobody named any yet."""
        with reading(self._engine) as connection:
            return rollouts.read_newest_rollout(connection)

    def rollouts(self) -> list[Rollout]:
        """Read all rollouts there were, the newest first."""
        with reading(self._engine) as connection:
            return rollouts.read_rollouts(connection)

    def set_rollout(
        self,
        champion: str,
        *,
        author: str,
        candidate: str | None = None,
        share: float = 0.0,
        at: int | None = None,
        after: int | None = None,
        refused: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Set which versions are to serve from now on; earlier rollouts stay readable.

        Args:
            champion: The model version that serves.
            author: Who decided it.
            candidate: The model version on trial.
            share: Of the images, how many go to the candidate as well, 0 to 1.
            at: When, ms; now if not given.
            after: The number of the rollout that this one was decided on (`Rollout.number`; 0 where there was none);
                by default it is not asked whether another came in between.
            refused: A version that could not serve, where that is why this one is set.
            reason: Why it could not.

        Raises:
            RolloutChangedError: Another rollout came after that one; nothing was written.
            ValueError: The share is not within 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share of 0 to 1, got {share}")
        rollout = Rollout(champion, candidate, share, author, _moment(at), refused, reason)
        with writing(self._engine) as connection:
            rollouts.add_rollout(connection, rollout, after)

    def compared(self, version: str) -> list[Compared]:
        """Read the predictions of a version on trial, beside the champion's for the same images."""
        with reading(self._engine) as connection:
            return trials.read_compared(connection, version)

    def _walk(
        self, read: Callable[[Connection, Sequence[RowMapping]], list[T]], wanted: Filter, *, newest_first: bool
    ) -> Iterator[T]:
        after: Place | None = None
        while True:
            with reading(self._engine) as connection:
                found, after = wafers.find_wafers(connection, wanted, after, _WALK, newest_first=newest_first)
                page = read(connection, found)
            yield from page
            if after is None:
                return


def _moment(at: int | None) -> int:
    return round(time.time() * 1000) if at is None else at
