"""What names a wafer, and the rows that stand for it."""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, and_, case

from fabwafer.messages.bodies import ImageMetadata, Prediction
from fabwafer.records.fields import storable
from fabwafer.records.inserts import insert
from fabwafer.records.tables import wafers

WaferKey = tuple[str, str, str]
"""fab, camera, imgid."""


def key_of(message: ImageMetadata | Prediction) -> WaferKey:
    """Return the key of the wafer that a message is about."""
    return message.fab, message.camera, message.imgid


def is_wafer(key: WaferKey) -> ColumnElement[bool]:
    """Return the condition that finds the row of one wafer."""
    columns = (wafers.c.fab, wafers.c.camera, wafers.c.imgid)
    return and_(*(column == storable(part) for column, part in zip(columns, key, strict=True)))


def wafer_ids(connection: Connection, touched: Iterable[tuple[WaferKey, int]]) -> dict[WaferKey, int]:
    """Find or make the wafers of a batch, and lock them, in the order of their keys, until it is committed.

    Args:
        connection: A transaction that writes.
        touched: The key of a wafer and when something was received about it, ms; in any order, with repetitions.
    """
    latest: dict[WaferKey, int] = {}
    for key, received in touched:
        latest[key] = max(received, latest.get(key, received))
    if not latest:
        return {}
    statement = insert(connection, wafers)
    newer = statement.excluded.received > wafers.c.received
    upsert = statement.on_conflict_do_update(
        index_elements=["fab", "camera", "imgid"],
        set_={"received": case((newer, statement.excluded.received), else_=wafers.c.received)},
    ).returning(wafers.c.id, wafers.c.fab, wafers.c.camera, wafers.c.imgid)
    rows = [
        {
            "fab": fab,
            "camera": camera,
            "imgid": imgid,
            "received": received,
            "alert": False,
            "reviewed": False,
            "needs_review": False,
        }
        for (fab, camera, imgid), received in sorted(latest.items())
    ]
    return {(row.fab, row.camera, row.imgid): row.id for row in connection.execute(upsert, rows)}
