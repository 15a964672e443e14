"""Wafers: which of them match a filter, a page at a time, as rows of a list or with all that is known of each."""

import base64
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, select, tuple_, union

from fabwafer.errors import FabwaferError
from fabwafer.maps.counts import MapCounts
from fabwafer.messages.bodies import CONTEXT_FIELDS
from fabwafer.records.fields import MAP_FIELDS, context_of, map_of, merged_context, storable
from fabwafer.records.keys import WaferKey, is_wafer
from fabwafer.records.predictions import PredictionRecord, current_of, read_predictions
from fabwafer.records.reviews import Review, read_reviews
from fabwafer.records.shots import ShotRecord, read_shots
from fabwafer.records.tables import alerts, predictions, reviews, shots, wafers

Place = tuple[Any, ...]
"""Where a page ends: the values of the columns that the wafers are ordered by."""

_LARGEST_INTEGER: Final = 2**63 - 1


class CursorError(FabwaferError):
    """A cursor that no page gave. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which wafers are asked for: those that match all of the fields that are not None.

    Args:
        fab: The name of a fab.
        camera: The name of a camera; of any fab, unless one is given.
        imgid: The name of an image; of any camera, unless one is given.
        lot: As received with any shot or prediction of the wafer, as are the following.
        slot: See lot.
        product: See lot.
        tool: See lot.
        step: See lot.
        notch: See lot.
        label: The class of the current prediction.
        alert: Whether any prediction of the wafer raised an alert.
        needs_review: Whether the current prediction asks for a review, and there is none.
        reviewed: Whether there is a review.
        since: Something was received about the wafer last at this moment or later; ms, stream time.
        until: Something was received about the wafer last before this moment; ms, stream time.
        min_probability: Of the current prediction, at least.
        max_probability: Of the current prediction, at most.
    """

    fab: str | None = None
    camera: str | None = None
    imgid: str | None = None
    lot: str | None = None
    slot: str | None = None
    product: str | None = None
    tool: str | None = None
    step: str | None = None
    notch: str | None = None
    label: str | None = None
    alert: bool | None = None
    needs_review: bool | None = None
    reviewed: bool | None = None
    since: int | None = None
    until: int | None = None
    min_probability: float | None = None
    max_probability: float | None = None


ALL: Final = Filter()


@dataclass(frozen=True, slots=True)
class WaferRow:
    """What a list shows of a wafer.

    `id` is the wafer's, as in blocks of embeddings. `received` is when anything was last received about it, ms.
    `label`, `probability`, `model`, `source`, `review` and `review_reason` are the current prediction's, None where
    there is none; `map` is what was counted by the newest prediction that counted, `alert` whether any raised one,
    `reviewed` the class of the last review.
    """

    id: int
    fab: str
    camera: str
    imgid: str
    received: int
    timestamp: int
    context: dict[str, str]
    label: str | None
    probability: float | None
    model: str | None
    source: str | None
    review: bool | None
    review_reason: str | None
    map: MapCounts | None
    alert: bool
    reviewed: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and the cursor to ask for the next part with; None at the end of the list."""

    rows: list[WaferRow]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class WaferRecord:
    """All that is known of a wafer; shots, predictions and reviews are in the order of receipt, the newest last.

    `received` is when anything was last received about it.
    """

    fab: str
    camera: str
    imgid: str
    received: int
    shots: tuple[ShotRecord, ...]
    predictions: tuple[PredictionRecord, ...]
    reviews: tuple[Review, ...]

    @property
    def current(self) -> PredictionRecord | None:
        """The newest prediction of the models that were serving this camera, else the newest of the device."""
        return current_of(self.predictions)

    @property
    def review(self) -> Review | None:
        """The last review, which counts."""
        return self.reviews[-1] if self.reviews else None

    @property
    def alert(self) -> bool:
        """Whether any prediction raised an alert."""
        return any(prediction.alert for prediction in self.predictions)

    @property
    def timestamp(self) -> int:
        """The moment of capture, ms: the newest shot's, else the newest prediction's."""
        return (self.shots or self.predictions)[-1].timestamp

    @property
    def context(self) -> dict[str, str]:
        """Lot, slot and the like: each from the newest shot that has it, else from the newest prediction."""
        return merged_context((one.context for one in self.predictions), (one.context for one in self.shots))

    @property
    def map(self) -> MapCounts | None:
        """What was counted on the wafer map, by the newest prediction that counted."""
        return next((one.map for one in reversed(self.predictions) if one.map), None)


def conditions_of(wanted: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions on the table of wafers; tables.py says beside its indexes which one serves which."""
    found: list[ColumnElement[bool]] = []
    for name in ("fab", "camera", "imgid", "label"):
        if (value := getattr(wanted, name)) is not None:
            found.append(wafers.c[name] == storable(value))
    for name in ("alert", "needs_review", "reviewed"):
        if (value := getattr(wanted, name)) is not None:
            found.append(wafers.c[name].is_(value))
    if wanted.since is not None:
        found.append(wafers.c.received >= wanted.since)
    if wanted.until is not None:
        found.append(wafers.c.received < wanted.until)
    if wanted.min_probability is not None:
        found.append(wafers.c.probability >= wanted.min_probability)
    if wanted.max_probability is not None:
        found.append(wafers.c.probability <= wanted.max_probability)
    for name in CONTEXT_FIELDS:
        if (value := getattr(wanted, name)) is not None:
            having = (
                select(table.c.wafer_id).where(table.c[name] == storable(value)) for table in (shots, predictions)
            )
            found.append(wafers.c.id.in_(union(*having)))
    return found


def count_wafers(connection: Connection, wanted: Filter) -> int:
    """Count the wafers that match."""
    return connection.scalar(select(func.count()).select_from(wafers).where(*conditions_of(wanted))) or 0


def delete_old_wafers(connection: Connection, received_before: int, limit: int) -> int:
    """Delete up to `limit` wafers of which nothing was received since a moment (ms), with all that refers to them.

    Reviewed ones stay, and those with an alert that is pending.

    Returns:
        How many were deleted; 0 when none are left.
    """
    pending = select(predictions.c.wafer_id).join(alerts).where(alerts.c.pending.is_(True))
    old = (
        select(wafers.c.id)
        .where(wafers.c.received < received_before, wafers.c.reviewed.is_(False), wafers.c.id.not_in(pending))
        .order_by(wafers.c.received, wafers.c.id)
        .limit(limit)
        # Whoever stores something of a wafer has locked it; that wafer is no longer old.
        .with_for_update(skip_locked=True)
    )
    return _delete(connection, connection.scalars(old).all())


def find_labels(connection: Connection) -> set[str]:
    """Find the classes that the current predictions or reviews name."""
    found = union(select(wafers.c.label), select(reviews.c.label))
    return {label for label in connection.scalars(found) if label}


def find_wafers(
    connection: Connection, wanted: Filter, after: Place | None, size: int, *, newest_first: bool
) -> tuple[Sequence[RowMapping], Place | None]:
    """Find the wafers of one page.

    Args:
        connection: A transaction that reads.
        wanted: Which wafers.
        after: Where the page before ended.
        size: The most wafers of a page, 1 or more.
        newest_first: By the last receipt; else by fab, camera and imgid.

    Returns:
        Rows of the table of wafers, and where the page ends; None when it is the last one.
    """
    order = _order(newest_first=newest_first)
    place = tuple_(*order)
    statement = (
        select(wafers)
        .where(*conditions_of(wanted))
        .order_by(*(column.desc() if newest_first else column for column in order))
        .limit(size + 1)  # one more, to see whether there is a next page
    )
    if after is not None:
        statement = statement.where(place < after if newest_first else place > after)
    rows = connection.execute(statement).mappings().all()
    if len(rows) <= size:
        return rows, None
    return rows[:size], tuple(rows[size - 1][column.name] for column in order)


def find_wafer(connection: Connection, wafer: WaferKey) -> Sequence[RowMapping]:
    """Find one wafer: one row of the table of wafers, or none."""
    return connection.execute(select(wafers).where(is_wafer(wafer))).mappings().all()


def delete_wafers(connection: Connection, wanted: Filter) -> int:
    """Delete all that is known of the wafers that match, in a writing transaction; return how many there were."""
    # Locked in the order of their keys, as the transactions that store something lock them.
    ids = connection.scalars(
        select(wafers.c.id).where(*conditions_of(wanted)).order_by(*_order(newest_first=False)).with_for_update()
    ).all()
    return _delete(connection, ids)


def _delete(connection: Connection, ids: Sequence[int]) -> int:
    """Delete wafers with all that refers to them; return how many there were."""
    of_wafers = select(predictions.c.id).where(predictions.c.wafer_id.in_(ids))
    connection.execute(delete(alerts).where(alerts.c.prediction_id.in_(of_wafers)))
    for table in (predictions, shots, reviews):
        connection.execute(delete(table).where(table.c.wafer_id.in_(ids)))
    connection.execute(delete(wafers).where(wafers.c.id.in_(ids)))
    return len(ids)


def write_cursor(place: Place | None) -> str | None:
    """Write where a page ended as a cursor: a string that is safe in URLs."""
    if place is None:
        return None
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, *, newest_first: bool) -> Place | None:
    """Read where a page ended from a cursor, which may come from anywhere.

    Raises:
        CursorError: No page in this order gave it.
    """
    if cursor is None:
        return None
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, RecursionError):
        place = None
    expected: list[type] = [int, int] if newest_first else [str, str, str]
    if (
        not isinstance(place, list)
        or [type(part) for part in place] != expected
        or any(abs(part) > _LARGEST_INTEGER for part in place if isinstance(part, int))
        or any(not part.isascii() or "\0" in part for part in place if isinstance(part, str))
    ):
        raise CursorError("expected the cursor that came with a page of this list, got another: start without one")
    return tuple(place)


def read_rows(connection: Connection, found: Sequence[RowMapping]) -> list[WaferRow]:
    """Read what a list shows of wafers; neither embeddings nor extra fields are read."""
    ids = [row["id"] for row in found]
    of_shots = _by_wafer(connection, shots, ids, "timestamp", *CONTEXT_FIELDS)
    of_predictions = _by_wafer(
        connection,
        predictions,
        ids,
        "id",
        "timestamp",
        "model",
        "source",
        "review",
        "review_reason",
        *MAP_FIELDS,
        *CONTEXT_FIELDS,
    )
    labels = select(reviews.c.wafer_id, reviews.c.label).where(reviews.c.wafer_id.in_(ids)).order_by(reviews.c.id)
    last_reviews = {row.wafer_id: row.label for row in connection.execute(labels)}  # later ones replace earlier ones
    return [_row(row, of_shots[row["id"]], of_predictions[row["id"]], last_reviews.get(row["id"])) for row in found]


def read_records(connection: Connection, found: Sequence[RowMapping]) -> list[WaferRecord]:
    """Read all that is known of wafers."""
    ids = [row["id"] for row in found]
    of_shots = read_shots(connection, ids)
    of_predictions = read_predictions(connection, ids)
    of_reviews = read_reviews(connection, ids)
    return [
        WaferRecord(
            row["fab"],
            row["camera"],
            row["imgid"],
            row["received"],
            tuple(of_shots[row["id"]]),
            tuple(of_predictions[row["id"]]),
            tuple(of_reviews[row["id"]]),
        )
        for row in found
    ]


def _order(*, newest_first: bool) -> list[ColumnElement[Any]]:
    names = ("received", "id") if newest_first else ("fab", "camera", "imgid")
    return [wafers.c[name] for name in names]


def _by_wafer(connection: Connection, table: Any, ids: Sequence[int], *columns: str) -> dict[int, list[RowMapping]]:
    """Read columns of shots or predictions, by the wafer's id, in the order of receipt."""
    statement = (
        select(table.c.wafer_id, *(table.c[name] for name in columns))
        .where(table.c.wafer_id.in_(ids))
        .order_by(table.c.wafer_id, table.c.received, table.c.sequence, table.c.id)
    )
    found: dict[int, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(statement).mappings():
        found[row["wafer_id"]].append(row)
    return found


def _row(
    row: RowMapping, of_shots: Sequence[RowMapping], of_predictions: Sequence[RowMapping], reviewed: str | None
) -> WaferRow:
    current = next((one for one in of_predictions if one["id"] == row["current_id"]), None)
    return WaferRow(
        id=row["id"],
        fab=row["fab"],
        camera=row["camera"],
        imgid=row["imgid"],
        received=row["received"],
        timestamp=(of_shots or of_predictions)[-1]["timestamp"],
        context=merged_context(
            (context_of(one, predictions) for one in of_predictions), (context_of(one, shots) for one in of_shots)
        ),
        label=row["label"],
        probability=row["probability"],
        model=current["model"] if current else None,
        source=current["source"] if current else None,
        review=current["review"] if current else None,
        review_reason=current["review_reason"] if current else None,
        map=next((counted for one in reversed(of_predictions) if (counted := map_of(one))), None),
        alert=row["alert"],
        reviewed=reviewed,
    )
