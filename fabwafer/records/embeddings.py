"""Embeddings: packed as float16, little endian, and read as blocks of float32.

Half the size of float32 is enough: embeddings are compared with each other, nothing is computed from them. Only
`read_block` needs NumPy, which the `records` extra does not bring.
"""

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, Connection, func, select

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
    connection: Connection,
    model: str,
    conditions: Sequence[ColumnElement[bool]],
    *,
    after: int,
    size: int,
    width: int | None,
) -> "Block":
    """Read one block of embeddings, in the order of the wafers' ids.

    Args:
        connection: A transaction that reads.
        model: Only wafers whose current prediction is of this model: embeddings of two models cannot be compared.
        conditions: On the table of wafers.
        after: Only wafers with a larger id.
        size: The most rows to read.
        width: Only embeddings of this many numbers; None for as many as the first one has.

    Returns:
        Ids of wafers, int64 [n], and their embeddings, float32 [n, width]; n is 0 when there are no more.
    """
    import numpy as np

    length = func.length(predictions.c.embedding)
    # Wafers by their primary key, and for each its current prediction by its primary key.
    statement = (
        select(wafers.c.id, predictions.c.embedding)
        .join(predictions, predictions.c.id == wafers.c.current_id)
        .where(predictions.c.model == model, length > 0 if width is None else length == 2 * width)
        .where(wafers.c.id > after, *conditions)
        .order_by(wafers.c.id)
        .limit(size)
    )
    rows = connection.execute(statement).all()
    if width is None and rows:
        width = len(rows[0][1]) // 2
        rows = [row for row in rows if len(row[1]) == 2 * width]
    ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    halves = np.frombuffer(b"".join(row[1] for row in rows), "<f2")
    return ids, halves.reshape(len(rows), width or 0).astype(np.float32)
