"""Predictions: the model's and the device's, each stored once, and the one of each wafer that is current."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, and_, case, func, or_, select, update

from fabwafer.maps.counts import MapCounts
from fabwafer.messages.bodies import Prediction
from fabwafer.records.embeddings import pack, unpack
from fabwafer.records.fields import MAP_FIELDS, context_and_extra, context_of, map_of, storable
from fabwafer.records.inserts import Key, insert_new
from fabwafer.records.keys import key_of, wafer_ids
from fabwafer.records.tables import alerts, predictions, wafers

_KEY: Final = ("wafer_id", "source", "model", "timestamp")
_MESSAGE_FIELDS: Final = (
    "source",
    "model",
    "timestamp",
    "prediction",
    "probability",
    "probabilities",
    "wafer",
    "review",
    "review_reason",
    "review_detail",
)


@dataclass(frozen=True, slots=True)
class ReceivedPrediction:
    """One prediction as it was received; `shadow` marks the answer of a candidate on trial."""

    prediction: Prediction
    received: int
    sequence: int
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The predictions of a batch that were new, and by the row's id those that serve since then and may alert."""

    new: list[ReceivedPrediction]
    serving: dict[int, ReceivedPrediction]


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """A stored prediction; `alert` is true when it raised one, `extra` has the fields that fabwafer does not know."""

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
    review_reason: str | None
    review_detail: str | None
    shadow: bool
    alert: bool
    map: MapCounts | None
    context: dict[str, str]
    extra: dict[str, Any]
    packed_embedding: bytes | None

    @property
    def embedding(self) -> tuple[float, ...] | None:
        """The embedding, at the precision of float16."""
        return None if self.packed_embedding is None else unpack(self.packed_embedding)


def store_predictions(connection: Connection, received: Sequence[ReceivedPrediction]) -> StoredRows:
    """Store predictions in a writing transaction, and make the current one of each wafer current.

    Args:
        connection: Its transaction is the caller's.
        received: In any order, with repetitions.
    """
    ids = wafer_ids(connection, ((key_of(one.prediction), one.received) for one in received))
    first: dict[Key, ReceivedPrediction] = {}
    for one in sorted(received, key=lambda one: (one.received, one.sequence)):
        message = one.prediction
        key = (ids[key_of(message)], message.source, storable(message.model), message.timestamp)
        earlier = first.setdefault(key, one)
        if earlier.shadow and not one.shadow:
            first[key] = replace(earlier, shadow=False)
    rows = {key: dict(zip(_KEY, key, strict=True)) | _row(one) for key, one in first.items()}
    new = insert_new(connection, predictions, _KEY, rows)
    # A candidate that was promoted may answer for a wafer that it answered in shadow before: now it serves.
    promoted = _leave_shadow(connection, [key for key, one in first.items() if key not in new and not one.shadow])
    _update_current(connection, sorted(ids.values()))
    serving = {row_id: first[key] for key, row_id in (new | promoted).items() if not first[key].shadow}
    return StoredRows([first[key] for key in new], serving)


def read_predictions(connection: Connection, ids: Sequence[int]) -> dict[int, list[PredictionRecord]]:
    """Read the predictions of wafers, by the wafer's id, in the order of receipt."""
    statement = (
        select(predictions, alerts.c.id.is_not(None).label("alert"))
        .select_from(predictions.outerjoin(alerts))
        .where(predictions.c.wafer_id.in_(ids))
        .order_by(predictions.c.wafer_id, predictions.c.received, predictions.c.sequence, predictions.c.id)
    )
    found: dict[int, list[PredictionRecord]] = defaultdict(list)
    for row in connection.execute(statement).mappings():
        found[row["wafer_id"]].append(
            PredictionRecord(
                **{name: row[name] for name in (*_MESSAGE_FIELDS, "received", "sequence", "shadow")},
                alert=bool(row["alert"]),
                map=map_of(row),
                context=context_of(row, predictions),
                extra=row["extra"] or {},
                packed_embedding=row["embedding"],
            )
        )
    return found


def current_of(of_wafer: Iterable[PredictionRecord]) -> PredictionRecord | None:
    """Return the current one of a wafer's predictions: the newest of the models that were serving, else the device's.

    `_update_current` says the same in SQL.

    Args:
        of_wafer: In the order of receipt, the newest last.
    """
    serving = [one for one in of_wafer if not one.shadow]
    cluster = [one for one in serving if one.source == "cluster"]
    return next((ones[-1] for ones in (cluster, serving) if ones), None)


def message_fields(row: RowMapping) -> dict[str, Any]:
    """Return the fields of a prediction's message, without the embedding, from a row that has the table's columns."""
    fields = {name: row[predictions.c[name]] for name in _MESSAGE_FIELDS}
    return {**fields, **context_of(row, predictions), "map": map_of(row)}


def _row(one: ReceivedPrediction) -> dict[str, Any]:
    message = one.prediction
    carried = context_and_extra(message)
    counts = message.map.model_dump() if message.map else {}
    embedding = message.embedding
    if message.source == "device":
        # Counts and embeddings are the model server's; what a device sends of them is only stored as an extra field.
        claims = {"map": counts or None, "embedding": embedding}
        more = {name: value for name, value in claims.items() if value is not None}
        carried["extra"] = {**(carried["extra"] or {}), **more} or None
        counts, embedding = {}, None
    return {
        "received": one.received,
        "sequence": one.sequence,
        "shadow": one.shadow,
        "prediction": storable(message.prediction),
        "probability": message.probability,
        "probabilities": message.probabilities,
        "wafer": None if message.source == "device" else message.wafer,
        "review": message.review,
        "review_reason": message.review_reason and storable(message.review_reason),
        "review_detail": message.review_detail and storable(message.review_detail),
        **{name: counts.get(name) for name in MAP_FIELDS},
        **carried,
        "embedding": None if embedding is None else pack(embedding),
    }


def _leave_shadow(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """Make predictions serve that were stored as a candidate's; return the ids of those that changed, by key."""
    if not keys:
        return {}
    columns = [predictions.c[name] for name in _KEY]
    statement = select(predictions.c.id, *columns).where(
        predictions.c.shadow, predictions.c.wafer_id.in_({wafer_id for wafer_id, *_ in keys})
    )
    wanted = set(keys)
    found = {tuple(row[1:]): row[0] for row in connection.execute(statement) if tuple(row[1:]) in wanted}
    if found:
        connection.execute(update(predictions).where(predictions.c.id.in_(found.values())).values(shadow=False))
    return found


def _update_current(connection: Connection, ids: Sequence[int]) -> None:
    """Point wafers, which the transaction has locked, to their current prediction. `current_of` says the same."""
    if not ids:
        return
    best_first = (
        case((predictions.c.source == "cluster", 0), else_=1),
        predictions.c.received.desc(),
        predictions.c.sequence.desc(),
        predictions.c.id.desc(),
    )
    ranked = (
        select(
            *(predictions.c[name] for name in ("id", "wafer_id", "prediction", "probability", "review")),
            func.row_number().over(partition_by=predictions.c.wafer_id, order_by=best_first).label("place"),
        )
        .where(predictions.c.wafer_id.in_(ids), predictions.c.shadow.is_(False))
        .subquery("ranked")
    )
    changed = or_(wafers.c.current_id.is_(None), wafers.c.current_id != ranked.c.id)
    connection.execute(
        update(wafers)
        .where(wafers.c.id == ranked.c.wafer_id, ranked.c.place == 1, changed)
        .values(
            current_id=ranked.c.id,
            label=ranked.c.prediction,
            probability=ranked.c.probability,
            needs_review=and_(func.coalesce(ranked.c.review, False), wafers.c.reviewed.is_(False)),
        )
    )
