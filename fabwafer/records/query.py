"""Reads the records: one per wafer, with its shots, its predictions side by side, and its last review."""

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Select, func, select, tuple_, union

from fabwafer.maps.counts import MapCounts
from fabwafer.messages.bodies import CONTEXT_FIELDS
from fabwafer.records.engine import reading
from fabwafer.records.store import MAP_FIELDS
from fabwafer.records.tables import alerts, predictions, reviews, rollouts, shots, wafers

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class ShotRecord:
    """A shot without its file; `kept` tells whether the file is still there."""

    timestamp: int
    received: int
    sequence: int
    context: dict[str, str]
    extra: dict[str, Any]
    kept: bool


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """A stored prediction; `alert` is true when it raised one, `extra` has the fields that we do not know."""

    source: str
    model: str
    timestamp: int
    received: int
    sequence: int
    prediction: str
    probability: float
    probabilities: dict[str, float] | None
    wafer: bool | None
    review: bool | None
    shadow: bool
    alert: bool
    map: MapCounts | None
    context: dict[str, str]
    extra: dict[str, Any]
    embedding: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Review:
    """What a person says that a wafer shows; `time` in ms."""

    label: str
    reviewer: str
    time: int
    note: str | None


@dataclass(frozen=True, slots=True)
class Rollout:
    """Who is to serve: desired state. `share` of the images goes to the candidate as well; `time` in ms.

    `number` grows with each word on it; 0 is before the first.
    """

    champion: str
    candidate: str | None
    share: float
    author: str
    time: int
    number: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class WaferRecord:
    """All that is known of a wafer; shots and predictions are in the order of receipt, the newest last.

    `received` is when anything was last received about it; `current` is the prediction that counts; `review` is the
    last word of a person.
    """

    fab: str
    camera: str
    imgid: str
    received: int
    shots: tuple[ShotRecord, ...]
    predictions: tuple[PredictionRecord, ...]
    current: PredictionRecord | None
    review: Review | None

    @property
    def timestamp(self) -> int:
        """The moment of capture, ms: the newest shot's, else the newest prediction's."""
        return (self.shots or self.predictions)[-1].timestamp

    @property
    def context(self) -> dict[str, str]:
        """Lot, slot and the like: each from the newest shot that has it, else from the newest prediction."""
        parts = [*(said.context for said in self.predictions), *(shot.context for shot in self.shots)]
        merged = {name: value for part in parts for name, value in part.items()}
        return {name: merged[name] for name in CONTEXT_FIELDS if name in merged}

    @property
    def map(self) -> MapCounts | None:
        """What was counted on the wafer map, by the newest that counted."""
        return next((said.map for said in reversed(self.predictions) if said.map), None)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which wafers: None means any; `context` is matched against shots and predictions."""

    fab: str | None = None
    camera: str | None = None
    imgid: str | None = None
    context: Mapping[str, str] | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on the table of wafers.

        Raises:
            ValueError: `context` names a field that is not one of CONTEXT_FIELDS.
        """
        named = {"fab": self.fab, "camera": self.camera, "imgid": self.imgid}
        found = [wafers.c[name] == value for name, value in named.items() if value is not None]
        for name, value in (self.context or {}).items():
            if name not in CONTEXT_FIELDS:
                raise ValueError(f"expected one of {', '.join(CONTEXT_FIELDS)}, got {name!r}")
            having = (select(table.c.wafer_id).where(table.c[name] == value) for table in (shots, predictions))
            found.append(wafers.c.id.in_(union(*having)))
        return found


def stream(engine: Engine, wanted: Filter, *, newest_first: bool = False) -> Iterator[WaferRecord]:
    """Yields the records that match, by fab, camera and imgid, or those first that were touched last.

    Reads page by page, each in a transaction of its own, so that a slow reader holds nothing up.
    """
    order = [wafers.c.received, wafers.c.id] if newest_first else [wafers.c.fab, wafers.c.camera, wafers.c.imgid]
    place = tuple_(*order)
    asked = select(wafers).where(*wanted.conditions()).limit(_PAGE)
    asked = asked.order_by(*(column.desc() if newest_first else column for column in order))
    page = asked
    while True:
        with reading(engine) as connection:
            rows = connection.execute(page).mappings().all()
            found = _records(connection, rows)
        yield from found
        if len(rows) < _PAGE:
            return
        last = tuple(rows[-1][column.name] for column in order)
        page = asked.where(place < last if newest_first else place > last)


def count(connection: Connection, wanted: Filter) -> int:
    """Counts the wafers that match."""
    return connection.scalar(select(func.count()).select_from(wafers).where(*wanted.conditions())) or 0


def wafer_id(connection: Connection, fab: str, camera: str, imgid: str) -> int | None:
    """The id of a wafer's row, or None when nothing was received about it."""
    return connection.scalar(select(wafers.c.id).where(*Filter(fab, camera, imgid).conditions()))


def newest_file(connection: Connection, fab: str, camera: str, imgid: str) -> bytes | None:
    """The image file of a wafer's newest shot; None when there is none, or it was forgotten."""
    asked = (
        select(shots.c.file)
        .join(wafers)
        .where(*Filter(fab, camera, imgid).conditions())
        .order_by(shots.c.received.desc(), shots.c.sequence.desc())
        .limit(1)
    )
    return connection.scalar(asked)


def newest_rollout(connection: Connection) -> Rollout | None:
    """Who is to serve, or None when nobody said so yet."""
    return next(iter(_rollouts(connection, limit=1)), None)


def all_rollouts(connection: Connection) -> list[Rollout]:
    """All that was said about who is to serve, the last word first."""
    return _rollouts(connection, limit=None)


def _rollouts(connection: Connection, limit: int | None) -> list[Rollout]:
    asked = select(rollouts).order_by(rollouts.c.id.desc()).limit(limit)
    return [
        Rollout(row.champion, row.candidate, row.share, row.author, row.time, row.id)
        for row in connection.execute(asked)
    ]


def prediction_fields(row: RowMapping) -> dict[str, Any]:
    """The fields of a prediction's message, out of a row that holds the table's columns; without the embedding."""
    said = {name: row[predictions.c[name]] for name in _MESSAGE_FIELDS}
    return {**said, **_context(row, predictions.c), "map": _map(row)}


_MESSAGE_FIELDS: Final = (
    "source",
    "model",
    "timestamp",
    "prediction",
    "probability",
    "probabilities",
    "wafer",
    "review",
)


def _records(connection: Connection, found: Sequence[RowMapping]) -> list[WaferRecord]:
    ids = [row["id"] for row in found]
    taken = _shots(connection, ids)
    said = _predictions(connection, ids)
    reviewed = _reviews(connection, ids)
    rollout = newest_rollout(connection) if found else None
    champion = rollout.champion if rollout else None
    return [
        WaferRecord(
            row["fab"],
            row["camera"],
            row["imgid"],
            row["received"],
            tuple(taken[row["id"]]),
            tuple(said[row["id"]]),
            _current(said[row["id"]], champion),
            reviewed.get(row["id"]),
        )
        for row in found
    ]


def _of(table: Any, ids: Sequence[int], *columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .where(table.c.wafer_id.in_(ids))
        .order_by(table.c.wafer_id, table.c.received, table.c.sequence, table.c.id)
    )


def _shots(connection: Connection, ids: Sequence[int]) -> dict[int, list[ShotRecord]]:
    columns = [column for column in shots.c if column is not shots.c.file]
    asked = _of(shots, ids, *columns, shots.c.file.is_not(None).label("kept"))
    found: dict[int, list[ShotRecord]] = defaultdict(list)
    for row in connection.execute(asked).mappings():
        found[row["wafer_id"]].append(
            ShotRecord(
                row["timestamp"],
                row["received"],
                row["sequence"],
                _context(row, shots.c),
                row["extra"] or {},
                bool(row["kept"]),
            )
        )
    return found


def _predictions(connection: Connection, ids: Sequence[int]) -> dict[int, list[PredictionRecord]]:
    asked = _of(predictions, ids, predictions, alerts.c.id.is_not(None).label("alert"))
    asked = asked.select_from(predictions.outerjoin(alerts))
    found: dict[int, list[PredictionRecord]] = defaultdict(list)
    for row in connection.execute(asked).mappings():
        packed = row["embedding"]
        found[row["wafer_id"]].append(
            PredictionRecord(
                **{name: row[name] for name in (*_MESSAGE_FIELDS, "received", "sequence", "shadow")},
                alert=bool(row["alert"]),
                map=_map(row),
                context=_context(row, predictions.c),
                extra=row["extra"] or {},
                embedding=None if packed is None else struct.unpack(f"<{len(packed) // 2}e", packed),
            )
        )
    return found


def _reviews(connection: Connection, ids: Sequence[int]) -> dict[int, Review]:
    asked = select(reviews).where(reviews.c.wafer_id.in_(ids)).order_by(reviews.c.id)
    # Later ones replace earlier ones: the last word stays.
    return {row.wafer_id: Review(row.label, row.reviewer, row.time, row.note) for row in connection.execute(asked)}


def _current(said: Sequence[PredictionRecord], champion: str | None) -> PredictionRecord | None:
    """The newest of the champion; else of another model of the cluster, the champion of its time; else the device's."""
    cluster = [one for one in said if one.source == "cluster" and not one.shadow]
    of_champion = [one for one in cluster if one.model == champion]
    device = [one for one in said if one.source == "device"]
    return next((ones[-1] for ones in (of_champion, cluster, device) if ones), None)


def _context(row: RowMapping, columns: Any) -> dict[str, str]:
    return {name: row[columns[name]] for name in CONTEXT_FIELDS if row[columns[name]] is not None}


def _map(row: RowMapping) -> MapCounts | None:
    if row[predictions.c.rows] is None:
        return None
    return MapCounts(**{name: row[predictions.c[name]] for name in MAP_FIELDS})
