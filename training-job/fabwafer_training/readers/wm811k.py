"""The columns of WM-811K, however they were stored: what its copies have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fabwafer_training.dataset import DataError, Dataset

MAP: Final = "waferMap"
LABEL: Final = "failureType"
LOT: Final = "lotName"
SPLIT: Final = ("trianTestLabel", "trainTestLabel")
"""The first is how the most spread copy spells it."""


def unwrapped(value: Any) -> Any:
    """Return what is in a cell: itself, or the first of nested lists or arrays, text without spaces around it.

    Empty text stands for nothing: an empty array in one copy, the number 0 in another, NaN or None elsewhere.
    """
    while isinstance(value, (list, tuple, np.ndarray)):
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
            continue
        if len(value) == 0:
            return ""
        value = value[0]
    if isinstance(value, bytes):
        return value.decode("latin-1").strip()
    if isinstance(value, str):
        return str(value).strip()
    return "" if value is None or value != value or value == 0 else value  # noqa: PLR0124 - NaN


def assemble(path: Path, columns: Mapping[str, Sequence[Any]]) -> Dataset:
    """Make a data set of the labelled rows.

    Raises:
        DataError: A column is missing, or a labelled row has no proper map.
    """
    for name in (MAP, LABEL):
        if name not in columns:
            raise DataError(f"{path}: the column {name!r} is missing; found {', '.join(map(str, columns)) or 'none'}")
    rows = len(columns[MAP])
    for name in (LABEL, LOT, *SPLIT):
        if name in columns and len(columns[name]) != rows:
            raise DataError(f"{path}: {name} has {len(columns[name])} rows, {MAP} has {rows}")
    split_name = next((name for name in SPLIT if name in columns), None)
    grids, labels, groups, split, names = [], [], [], [], []
    for row in range(rows):
        label = unwrapped(columns[LABEL][row])
        if label == "":
            continue
        if not isinstance(label, str):
            raise DataError(f"{path}: row {row}: {LABEL} holds {label!r}, expected the name of a class or nothing")
        grids.append(_grid(path, row, columns[MAP][row]))
        labels.append(label)
        lot = unwrapped(columns[LOT][row]) if LOT in columns else ""
        groups.append(str(lot) or f"row {row}")
        split.append(str(unwrapped(columns[split_name][row])) if split_name else "")
        names.append(f"row {row}")
    if not grids:
        raise DataError(f"{path}: none of its {rows} rows has a label in {LABEL}")
    unlabelled = rows - len(grids)
    return Dataset(
        path.stem,
        grids,
        np.array(labels),
        np.array(groups),
        np.array(split),
        unread=(f"left out {unlabelled} of {rows} rows, which have no label",) if unlabelled else (),
        names=names,
    )


def _grid(path: Path, row: int, value: Any) -> NDArray[np.uint8]:
    try:
        grid = np.asarray(value)
        with np.errstate(invalid="ignore"):  # NaN is told of below
            numbers = grid.astype(np.float64).astype(np.uint8)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{path}: row {row}: {MAP} holds {type(value).__name__}, not a table of dies") from None
    if grid.ndim != 2 or grid.size == 0:
        raise DataError(f"{path}: row {row}: {MAP} should have rows and columns of dies, has the shape {grid.shape}")
    if not np.array_equal(numbers, grid) or numbers.max() > 2:
        raise DataError(f"{path}: row {row}: {MAP} may hold 0 (outside), 1 (passed) and 2 (failed), has other values")
    return numbers
