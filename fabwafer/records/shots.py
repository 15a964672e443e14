"""Shots: the images of a wafer as they were received."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, update

from fabwafer.messages.bodies import ImageMetadata
from fabwafer.records.fields import context_and_extra, context_of
from fabwafer.records.inserts import Key, insert_new
from fabwafer.records.keys import WaferKey, is_wafer, key_of, wafer_ids
from fabwafer.records.tables import reviews, shots, wafers

_KEY: Final = ("wafer_id", "timestamp", "digest")


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
class ShotRecord:
    """A stored shot without its file; `has_file` is false once the file was deleted by age."""

    timestamp: int
    received: int
    sequence: int
    context: dict[str, str]
    extra: dict[str, Any]
    has_file: bool


def store_shots(connection: Connection, received: Sequence[Shot]) -> int:
    """Store shots in a writing transaction; return how many were new."""
    ids = wafer_ids(connection, ((key_of(shot.image), shot.received) for shot in received))
    rows: dict[Key, dict[str, Any]] = {}
    for shot in sorted(received, key=lambda shot: (shot.received, shot.sequence)):
        digest = hashlib.sha256(shot.data).digest()
        key = (ids[key_of(shot.image)], shot.image.timestamp, digest)
        if key not in rows:
            rows[key] = {
                **dict(zip(_KEY, key, strict=True)),
                "received": shot.received,
                "sequence": shot.sequence,
                **context_and_extra(shot.image),
                "file": shot.data,
            }
    return len(insert_new(connection, shots, _KEY, rows))


def read_shots(connection: Connection, ids: Sequence[int]) -> dict[int, list[ShotRecord]]:
    """Read the shots of wafers, by the wafer's id, in the order of receipt."""
    columns = [column for column in shots.c if column is not shots.c.file]
    statement = (
        select(*columns, shots.c.file.is_not(None).label("has_file"))
        .where(shots.c.wafer_id.in_(ids))
        .order_by(shots.c.wafer_id, shots.c.received, shots.c.sequence, shots.c.id)
    )
    found: dict[int, list[ShotRecord]] = defaultdict(list)
    for row in connection.execute(statement).mappings():
        found[row["wafer_id"]].append(
            ShotRecord(
                row["timestamp"],
                row["received"],
                row["sequence"],
                context_of(row, shots),
                row["extra"] or {},
                bool(row["has_file"]),
            )
        )
    return found


def read_newest_file(connection: Connection, wafer: WaferKey) -> bytes | None:
    """Read the image file of a wafer's newest shot; None when there is none, or it was deleted."""
    statement = (
        select(shots.c.file)
        .join(wafers)
        .where(is_wafer(wafer))
        .order_by(shots.c.received.desc(), shots.c.sequence.desc(), shots.c.id.desc())
        .limit(1)
    )
    return connection.scalar(statement)


def delete_files(connection: Connection, received_before: int, limit: int) -> int:
    """Delete up to `limit` image files received before a moment (ms), of wafers without a review.

    Returns:
        How many were deleted; less than `limit` when no more are left.
    """
    old = (
        select(shots.c.id)
        .where(shots.c.file.is_not(None), shots.c.received < received_before)
        .where(shots.c.wafer_id.not_in(select(reviews.c.wafer_id)))
        .limit(limit)
    )
    return connection.execute(update(shots).where(shots.c.id.in_(old)).values(file=None)).rowcount
