"""A die grid of any size as the input of the network."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fabwafer.maps.grid import FAILED, OUTSIDE, bounding_box

SCALING_VERSION = 1
INPUT_SIZE = 64
CHANNELS = 3


def scale(grid: NDArray[np.uint8], size: int = INPUT_SIZE) -> NDArray[np.float32]:
    """Stretch the wafer's bounding box to a square of `size` x `size` cells.

    Shrinking by averages alone would fade a single failed die among hundreds; the second channel says whether a cell
    touches any failed die at all, so that a lone die and a scratch one die wide stay at full strength however many
    dies share the cell.

    Args:
        grid: dies, uint8 [rows, columns], 0 outside, 1 passed, 2 failed.
        size: cells along each side.

    Returns:
        float32 [3, size, size], each in 0..1: the share of failed area among the die area in the cell; 1 where the
        cell touches a failed die; the share of the cell that dies cover. All zero for a grid without dies.
    """
    inside = grid != OUTSIDE
    out = np.zeros((CHANNELS, size, size), np.float32)
    box = bounding_box(inside)
    if box is None:
        return out
    height, width = inside[box].shape
    down, across = overlaps(height, size), overlaps(width, size).T
    covered = down @ inside[box].astype(np.float32) @ across
    failed = down @ (grid[box] == FAILED).astype(np.float32) @ across
    np.divide(failed, covered, out=out[0], where=covered > 0)
    out[1] = failed > 0
    out[2] = covered
    return np.minimum(out, 1, out=out)


@lru_cache(maxsize=512)
def overlaps(dies: int, size: int) -> NDArray[np.float32]:
    """Return the share of each of `size` cells that each of `dies` dies covers along one axis, float32 [size, dies].

    Lengths are whole numbers (a die is `size` long, a cell `dies`), so that no rounding makes a cell touch the
    neighbour of its last die.
    """
    cells, places = np.arange(size)[:, None] * dies, np.arange(dies)[None, :] * size
    overlap = np.minimum(cells + dies, places + size) - np.maximum(cells, places)
    share: NDArray[np.float32] = np.maximum(overlap, 0).astype(np.float32) / np.float32(dies)
    share.setflags(write=False)
    return share
