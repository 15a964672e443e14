"""Embeddings: packed as float16, little endian, and read as blocks of float32.

Half the size of float32 is enough: embeddings are compared with each other, nothing is computed from them. Only
`unpack_block` needs NumPy, which the `records` extra does not bring.
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, Connection, and_, select

from fabwafer.records.tables import predictions, wafers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Block = tuple[NDArray[np.int64], NDArray[np.float32]]

_LARGEST_HALF: Final = 65504.0


def pack(values: Sequence[float]) -> bytes:
    """Pack numbers as float16, little endian; what is too large for it becomes the largest."""
    form = f"<{len(values)}e"
    try:
        return struct.pack(form, *values)
    except OverflowError:
        return struct.pack(form, *(max(-_LARGEST_HALF, min(_LARGEST_HALF, value)) for value in values))


def unpack(packed: bytes) -> tuple[float, ...]:
    """Unpack what `pack` packed."""
    return struct.unpack(f"<{len(packed) // 2}e", packed)


def read_block(
    connection: Connection, model: str, conditions: Sequence[ColumnElement[bool]], *, after: int, size: int
) -> tuple[list[tuple[int, bytes]], int | None]:
    """Read the packed embeddings of one block of wafers, in the order of the wafers' ids.

    Args:
        connection: A transaction that reads.
        model: Only embeddings of wafers whose current prediction is of this model.
        conditions: On the table of wafers.
        after: Only wafers with a larger id.
        size: The most wafers to look at.

    Returns:
        Ids of wafers and their embeddings, which may be none, and the last id of the block; None at the end.
    """
    block = (
        select(wafers.c.id, wafers.c.current_id)
        .where(wafers.c.id > after, *conditions)
        .order_by(wafers.c.id)
        .limit(size)
        .subquery("block")
    )
    # Both by primary keys. Were the block limited after the join, PostgreSQL would join all wafers for each block.
    statement = (
        select(block.c.id, predictions.c.embedding)
        .outerjoin(predictions, and_(predictions.c.id == block.c.current_id, predictions.c.model == model))
        .order_by(block.c.id)
    )
    rows = connection.execute(statement).all()
    return [(row[0], row[1]) for row in rows if row[1]], rows[-1][0] if rows else None


def unpack_block(rows: Sequence[tuple[int, bytes]]) -> "Block":
    """Unpack ids and packed embeddings of one width: int64 [n], and float32 [n, d]."""
    import numpy as np

    ids = np.fromiter((row_id for row_id, _ in rows), np.int64, len(rows))
    halves = np.frombuffer(b"".join(packed for _, packed in rows), "<f2")
    return ids, halves.reshape(len(rows), -1).astype(np.float32)
