"""History: what another system received earlier, added to the records without a change to what is there already."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, select, tuple_, update

from fabwafer.maps.counts import MapCounts
from fabwafer.records.fields import storable
from fabwafer.records.keys import WaferKey, key_of
from fabwafer.records.predictions import ReceivedPrediction
from fabwafer.records.reviews import Review, add_review, read_reviews
from fabwafer.records.shots import Shot
from fabwafer.records.tables import predictions, shots, wafers

_WAFER: Final = (wafers.c.fab, wafers.c.camera, wafers.c.imgid)


def new_predictions(connection: Connection, received: Sequence[ReceivedPrediction]) -> list[ReceivedPrediction]:
    """Return the predictions that are not stored."""
    columns = (predictions.c.source, predictions.c.model, predictions.c.timestamp)
    statement = select(*_WAFER, *columns).join(wafers).where(_among(key_of(one.prediction) for one in received))
    stored = {tuple(row) for row in connection.execute(statement)}
    return [one for one in received if _prediction_key(one) not in stored]


def _prediction_key(one: ReceivedPrediction) -> tuple[str | int, ...]:
    message = one.prediction
    return *key_of(message), message.source, storable(message.model), message.timestamp


def new_shots(connection: Connection, received: Sequence[Shot]) -> list[Shot]:
    """Return the shots whose file their wafer does not have, at whatever time: copies of files lose theirs."""
    statement = select(*_WAFER, shots.c.digest).join(wafers).where(_among(key_of(shot.image) for shot in received))
    stored = {tuple(row) for row in connection.execute(statement)}
    first: dict[tuple[str | bytes, ...], Shot] = {}
    for shot in received:
        first.setdefault((*key_of(shot.image), sha256(shot.data).digest()), shot)
    return [shot for key, shot in first.items() if key not in stored]


def add_counts(connection: Connection, counts: Mapping[WaferKey, MapCounts]) -> None:
    """Add what was counted on maps to the newest device's prediction of each wafer that has no counts yet."""
    statement = (
        select(*_WAFER, predictions.c.id, predictions.c.source, predictions.c.rows)
        .join(predictions)
        .where(_among(counts))
        .order_by(predictions.c.received, predictions.c.sequence, predictions.c.id)
    )
    newest: dict[WaferKey, int] = {}
    counted: set[WaferKey] = set()
    for fab, camera, imgid, row_id, source, rows in connection.execute(statement):
        key = (fab, camera, imgid)
        if rows is not None:
            counted.add(key)
        if source == "device":
            newest[key] = row_id
    added = [{"b_id": newest[key], **counts[key].model_dump()} for key in sorted(newest.keys() - counted)]
    if added:
        values: dict[str, Any] = {name: bindparam(name) for name in MapCounts.model_fields}
        connection.execute(update(predictions).where(predictions.c.id == bindparam("b_id")).values(values), added)


def add_reviews(connection: Connection, found: Sequence[tuple[WaferKey, Review]]) -> list[str]:
    """Add reviews in the order of their time, each unless its wafer has a later one, which counts.

    Returns:
        For each review in the order given: `new`, `known` (that review is there), `later` (a later one is), or
        `unknown` (nothing was received about the wafer).
    """
    # Locked in the order of their keys, as whoever stores predictions locks them.
    statement = select(wafers.c.id, *_WAFER).where(_among(key for key, _ in found)).order_by(*_WAFER).with_for_update()
    ids = {(fab, camera, imgid): wafer_id for wafer_id, fab, camera, imgid in connection.execute(statement)}
    of_wafer = read_reviews(connection, list(ids.values()))
    results = [""] * len(found)
    for number in sorted(range(len(found)), key=lambda number: found[number][1].time):
        key, review = found[number]
        if key not in ids:
            results[number] = "unknown"
            continue
        there = of_wafer[ids[key]]
        if review in there:
            results[number] = "known"
        elif any(one.time > review.time for one in there):
            results[number] = "later"
        else:
            add_review(connection, key, review)
            there.append(review)
            results[number] = "new"
    return results


def capture_times(connection: Connection, keys: Collection[WaferKey]) -> dict[WaferKey, int]:
    """Return the timestamp of each wafer's newest device's prediction, ms, where it has one."""
    statement = (
        select(*_WAFER, predictions.c.timestamp)
        .join(predictions)
        .where(_among(keys), predictions.c.source == "device")
        .order_by(predictions.c.received, predictions.c.sequence, predictions.c.id)
    )
    return {(fab, camera, imgid): timestamp for fab, camera, imgid, timestamp in connection.execute(statement)}


def wafers_of_images(connection: Connection, imgids: Collection[str]) -> dict[str, list[WaferKey]]:
    """Return the wafers of each imgid; none for one that nothing was received about."""
    statement = select(*_WAFER).where(wafers.c.imgid.in_(imgids))
    found: dict[str, list[WaferKey]] = {imgid: [] for imgid in imgids}
    for fab, camera, imgid in connection.execute(statement):
        found[imgid].append((fab, camera, imgid))
    return found


def _among(keys: Iterable[WaferKey]) -> ColumnElement[bool]:
    return tuple_(*_WAFER).in_(sorted(set(keys)))
