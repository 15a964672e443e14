"""Stores what was received: shots and predictions, each once, with the alerts that they raise."""

import hashlib
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, case, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from fabwafer.defects import is_defect
from fabwafer.maps.counts import MapCounts
from fabwafer.messages.bodies import CONTEXT_FIELDS, ImageMetadata, Prediction
from fabwafer.records.tables import alerts, predictions, shots, wafers

WaferKey = tuple[str, str, str]
"""fab, camera, imgid."""

MAP_FIELDS: Final = tuple(MapCounts.model_fields)

_ALERT_NAMES: Final = uuid.uuid5(uuid.NAMESPACE_URL, "fabwafer:alert")
_LARGEST_HALF: Final = 65504.0


@dataclass(frozen=True, slots=True)
class Shot:
    """One image as it was received.

    `data` is the image file, `received` the stream time of the intake in ms, `sequence` the intake's stream sequence:
    together they are the order of receipt, since device clocks lie.
    """

    image: ImageMetadata
    data: bytes
    received: int
    sequence: int


@dataclass(frozen=True, slots=True)
class ReceivedPrediction:
    """One prediction as it was received; `shadow` marks the answer of a candidate on trial."""

    prediction: Prediction
    received: int
    sequence: int
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class StoredPredictions:
    """The predictions that were new, and the fab and class of each alert that was raised."""

    new: list[ReceivedPrediction]
    alerts: list[tuple[str, str]]


def store_shots(connection: Connection, received: Sequence[Shot]) -> int:
    """Stores shots in a writing transaction; returns how many were new."""
    ids = _wafer_ids(connection, ((_wafer_key(shot.image), shot.received) for shot in received))
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for shot in sorted(received, key=lambda shot: (shot.received, shot.sequence)):
        digest = hashlib.sha256(shot.data).digest()
        key = (ids[_wafer_key(shot.image)], shot.image.timestamp, digest)
        if key not in rows:
            rows[key] = {
                **dict(zip(_SHOT_KEY, key, strict=True)),
                "received": shot.received,
                "sequence": shot.sequence,
                **_carried(shot.image),
                "file": shot.data,
            }
    return len(_insert_new(connection, shots, _SHOT_KEY, rows))


def store_predictions(
    connection: Connection,
    received: Sequence[ReceivedPrediction],
    threshold: Callable[[str, str, str], float],
) -> StoredPredictions:
    """Stores predictions in a writing transaction, and decides the alerts in it.

    Args:
        connection: Its transaction is the caller's.
        received: In any order, with repetitions.
        threshold: The probability from which a class alerts, by fab, camera and class.
    """
    ids = _wafer_ids(connection, ((_wafer_key(one.prediction), one.received) for one in received))
    kept: dict[tuple[Any, ...], ReceivedPrediction] = {}
    for one in sorted(received, key=lambda one: (one.received, one.sequence)):
        said = one.prediction
        key = (ids[_wafer_key(said)], said.source, _text(said.model), said.timestamp)
        first = kept.setdefault(key, one)
        if first.shadow and not one.shadow:
            kept[key] = replace(first, shadow=False)
    rows = {key: dict(zip(_PREDICTION_KEY, key, strict=True)) | _prediction_row(one) for key, one in kept.items()}
    new = _insert_new(connection, predictions, _PREDICTION_KEY, rows)
    # A candidate that was promoted may answer for a wafer that it answered in shadow before: now it counts.
    counted = _leave_shadow(connection, [key for key, one in kept.items() if key not in new and not one.shadow])
    raised = _raise_alerts(connection, ((row_id, kept[key]) for key, row_id in (new | counted).items()), threshold)
    return StoredPredictions([kept[key] for key in new], raised)


def _wafer_key(message: ImageMetadata | Prediction) -> WaferKey:
    return message.fab, message.camera, message.imgid


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _wafer_ids(connection: Connection, touched: Iterable[tuple[WaferKey, int]]) -> dict[WaferKey, int]:
    """Finds or makes the wafers of a batch, and locks them, in the order of their names, until it is committed."""
    latest: dict[WaferKey, int] = {}
    for key, received in touched:
        latest[key] = max(received, latest.get(key, received))
    if not latest:
        return {}
    insert = _insert(connection, wafers)
    newer = insert.excluded.received > wafers.c.received
    upsert = insert.on_conflict_do_update(
        index_elements=["fab", "camera", "imgid"],
        set_={"received": case((newer, insert.excluded.received), else_=wafers.c.received)},
    ).returning(wafers.c.id, wafers.c.fab, wafers.c.camera, wafers.c.imgid)
    rows = [
        {"fab": fab, "camera": camera, "imgid": imgid, "received": received}
        for (fab, camera, imgid), received in sorted(latest.items())
    ]
    return {(row.fab, row.camera, row.imgid): row.id for row in connection.execute(upsert, rows)}


_SHOT_KEY: Final = ("wafer_id", "timestamp", "digest")
_PREDICTION_KEY: Final = ("wafer_id", "source", "model", "timestamp")


def _insert_new(
    connection: Connection, table: Table, key: tuple[str, ...], rows: Mapping[tuple[Any, ...], dict[str, Any]]
) -> dict[tuple[Any, ...], int]:
    """Inserts the rows whose key is new and returns their ids; of the others only an earlier receipt is taken over."""
    if not rows:
        return {}
    columns = [table.c[name] for name in key]
    insert = _insert(connection, table).on_conflict_do_nothing(index_elements=list(key)).returning(table.c.id, *columns)
    result = connection.execute(insert, [rows[key] for key in sorted(rows)])
    new = {tuple(row[1:]): row[0] for row in result}
    known = [rows[key] for key in sorted(rows) if key not in new]
    if known:
        earlier = tuple_(table.c.received, table.c.sequence) > tuple_(bindparam("b_received"), bindparam("b_sequence"))
        same = [table.c[name] == bindparam(f"b_{name}") for name in key]
        connection.execute(
            update(table)
            .where(*same, earlier)
            .values(received=bindparam("b_received"), sequence=bindparam("b_sequence")),
            [{f"b_{name}": row[name] for name in (*key, "received", "sequence")} for row in known],
        )
    return new


def _leave_shadow(connection: Connection, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], int]:
    if not keys:
        return {}
    columns = [predictions.c[name] for name in _PREDICTION_KEY]
    asked = select(predictions.c.id, *columns).where(
        predictions.c.shadow, predictions.c.wafer_id.in_({wafer_id for wafer_id, *_ in keys})
    )
    wanted = set(keys)
    found = {tuple(row[1:]): row[0] for row in connection.execute(asked) if tuple(row[1:]) in wanted}
    if found:
        connection.execute(update(predictions).where(predictions.c.id.in_(found.values())).values(shadow=False))
    return found


def _raise_alerts(
    connection: Connection,
    new: Iterable[tuple[int, ReceivedPrediction]],
    threshold: Callable[[str, str, str], float],
) -> list[tuple[str, str]]:
    rows, raised = [], []
    for prediction_id, one in new:
        said = one.prediction
        if one.shadow or said.wafer is False or not is_defect(said.prediction):
            continue
        limit = threshold(said.fab, said.camera, said.prediction)
        if said.probability < limit:
            continue
        rows.append(
            {
                "id": alert_id(said),
                "prediction_id": prediction_id,
                "threshold": limit,
                "received": one.received,
                "pending": True,
                "attempts": 0,
            }
        )
        raised.append((said.fab, said.prediction))
    if rows:
        connection.execute(_insert(connection, alerts), rows)
    return raised


def alert_id(said: Prediction) -> str:
    """The id of the alert that a prediction raises: the same each time, so that receivers can tell repetitions."""
    key = (said.fab, said.camera, said.imgid, said.source, said.model, str(said.timestamp))
    return str(uuid.uuid5(_ALERT_NAMES, "/".join(key)))


def _prediction_row(one: ReceivedPrediction) -> dict[str, Any]:
    said = one.prediction
    carried = _carried(said)
    counts = said.map.model_dump() if said.map else {}
    embedding = said.embedding
    if said.source == "device":
        # Counts and embeddings are the model server's to say; what a device sends is kept, but taken for nothing.
        foreign = {"map": counts or None, "embedding": embedding}
        more = {name: value for name, value in foreign.items() if value is not None}
        carried["extra"] = {**(carried["extra"] or {}), **more} or None
        counts, embedding = {}, None
    return {
        "received": one.received,
        "sequence": one.sequence,
        "shadow": one.shadow,
        "prediction": _text(said.prediction),
        "probability": said.probability,
        "probabilities": said.probabilities,
        "wafer": None if said.source == "device" else said.wafer,
        "review": said.review,
        **{name: counts.get(name) for name in MAP_FIELDS},
        **carried,
        "embedding": None if embedding is None else half_floats(embedding),
    }


def _carried(message: ImageMetadata | Prediction) -> dict[str, Any]:
    context = {name: getattr(message, name) for name in CONTEXT_FIELDS}
    return {
        **{name: value if value is None else _text(value) for name, value in context.items()},
        "extra": message.model_extra or None,
    }


def _text(value: str) -> str:
    # PostgreSQL holds any character but this one.
    return value.replace("\0", "\ufffd")


def half_floats(values: Sequence[float]) -> bytes:
    """Packs numbers as float16, little endian: a fourth of float64, and embeddings are compared, not computed with."""
    form = f"<{len(values)}e"
    try:
        return struct.pack(form, *values)
    except OverflowError:
        return struct.pack(form, *(max(-_LARGEST_HALF, min(_LARGEST_HALF, value)) for value in values))
