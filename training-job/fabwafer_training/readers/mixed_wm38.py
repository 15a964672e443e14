"""MixedWM38's layout in an `.npz`: `arr_0` holds maps of one size, `arr_1` a column of 0 and 1 for each pattern."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fabwafer.defects import NONE
from fabwafer.maps.grid import PASSED
from fabwafer_training.dataset import DataError, Dataset

MAPS: Final = "arr_0"
LABELS: Final = "arr_1"

_PATTERNS: Final = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Scratch", "Random")
"""The columns of `arr_1`, in its order."""

_NOISE: Final = 3
"""A value that some maps hold in a few dies, and that stands for nothing."""


def read_mixed(path: Path, maps: NDArray[Any], labels: NDArray[Any]) -> Dataset:
    """Make a data set of the maps that show one pattern, or none; those of several are left out and told of.

    Args:
        path: The file, for sentences.
        maps: `arr_0`, whole numbers [n, rows, columns]: 0 outside, 1 passed, 2 failed, 3 noise, read as passed.
        labels: `arr_1`, 0 and 1 [n, 8], in the order of `_PATTERNS`; a row of zeros is a map without a pattern.

    Raises:
        DataError: The arrays are not such, or no map is left.
    """
    _check(path, maps, labels)
    shown = labels.sum(axis=1)
    rows = np.flatnonzero(shown <= 1)
    if len(rows) == 0:
        raise DataError(f"{path}: all {len(maps)} maps show several patterns: a map has one label here")
    noisy = (maps == _NOISE).any(axis=(1, 2))
    told = []
    if several := len(maps) - len(rows):
        told.append(f"left out {several} of {len(maps)} maps, which show several patterns: a map has one label here")
    if noisy[rows].any():
        told.append(
            f"read the value {_NOISE}, which stands for nothing here, as passed in {int(noisy[rows].sum())} of "
            f"{len(rows)} maps"
        )
    grids = maps[rows].astype(np.uint8)
    grids[grids == _NOISE] = PASSED
    names = np.array([*_PATTERNS, NONE])
    return Dataset(
        path.stem,
        list(grids),
        names[np.where(shown[rows] == 0, len(_PATTERNS), labels[rows].argmax(axis=1))],
        rows.astype(np.str_),
        unread=tuple(told),
        names=[f"row {row}" for row in rows],
    )


def _check(path: Path, maps: NDArray[Any], labels: NDArray[Any]) -> None:
    if maps.ndim != 3 or maps.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {MAPS} should be maps as whole numbers [n, rows, columns], is {maps.dtype} of the shape "
            f"{maps.shape}"
        )
    if labels.shape != (len(maps), len(_PATTERNS)) or labels.dtype.kind not in "iub":
        raise DataError(
            f"{path}: {LABELS} should be labels as 0 and 1 [{len(maps)}, {len(_PATTERNS)}], is {labels.dtype} of the "
            f"shape {labels.shape}"
        )
    if maps.size == 0:
        raise DataError(f"{path}: there are no maps")
    for name, array, largest, expected in (
        (MAPS, maps, _NOISE, f"0 (outside), 1 (passed), 2 (failed) and {_NOISE} (noise)"),
        (LABELS, labels, 1, "0 and 1"),
    ):
        wrong = np.argwhere((array < 0) | (array > largest))
        if len(wrong):
            found = array[tuple(wrong[0])]
            raise DataError(f"{path}: row {wrong[0][0]}: {name} may hold {expected}, has {found}")
