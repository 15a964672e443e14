"""The grid of dies: what its values mean, the wafer's bounding box in it, and what can be counted on it."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fabwafer.maps.counts import MapCounts

Grid: TypeAlias = NDArray[np.uint8]
"""Dies, uint8 [rows, columns], of OUTSIDE, PASSED and FAILED."""

OUTSIDE: Final = 0
"""A place of the grid that is not on the wafer."""
PASSED: Final = 1
"""A die that passed."""
FAILED: Final = 2
"""A die that failed."""

EIGHT_NEIGHBOURS: Final = np.ones((3, 3), np.uint8)
"""Dies that share a side or a corner are connected."""


@dataclass(frozen=True, slots=True)
class ReadMap:
    """A die grid as it was read from a drawing.

    Attributes:
        grid: The dies.
        doubt: Why its colours leave a doubt about which dies passed and which failed, as a sentence; else empty.
    """

    grid: Grid
    doubt: str = ""


def bounding_box(inside: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return the smallest rectangle that holds all true values, as slices; None where there is none.

    Args:
        inside: bool [rows, columns].
    """
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if rows.size == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def count(grid: NDArray[np.uint8]) -> MapCounts:
    """Count dies and connected regions of failed dies.

    Args:
        grid: dies, uint8 [rows, columns].
    """
    failed = grid == FAILED
    labels, regions = ndimage.label(failed, EIGHT_NEIGHBOURS)
    largest = int(np.bincount(labels.ravel())[1:].max()) if regions else 0
    return MapCounts(
        rows=grid.shape[0],
        columns=grid.shape[1],
        passed=int(np.count_nonzero(grid == PASSED)),
        failed=int(np.count_nonzero(failed)),
        regions=int(regions),
        largest=largest,
    )
