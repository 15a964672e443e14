"""Labelled wafer maps in one `.npz`: all dies in one flat array, with offsets and shapes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabwafer_training.dataset import DataError, Dataset
from fabwafer_training.readers.mixed_wm38 import LABELS, MAPS, read_mixed

FIELDS = ("flat", "offsets", "height", "width", "label")


def read_npz(path: Path) -> Dataset:
    """Read `flat`, `offsets`, `height`, `width`, `label` and, where present, `group` and `split`.

    Map i is `flat[offsets[i]:offsets[i + 1]].reshape(height[i], width[i])`. A file with `arr_0` and `arr_1` is read as
    MixedWM38. Nothing in the file is unpickled.

    Raises:
        DataError: The file is not such an archive, an array is missing, or a row does not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except Exception as error:  # a damaged archive can fail in any way
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: expected a NumPy .npz archive without pickled objects: {reason}") from None
    if MAPS in arrays and LABELS in arrays and not arrays.keys() & set(FIELDS):
        return read_mixed(path, arrays[MAPS], arrays[LABELS])
    for name in FIELDS:
        if name not in arrays:
            raise DataError(f"{path}: the array {name!r} is missing; found {', '.join(sorted(arrays)) or 'none'}")
    for name in (*FIELDS, *(name for name in ("group", "split") if name in arrays)):
        _check_kind(path, name, arrays[name])
    labels = np.array([label.strip() for label in arrays["label"].astype(np.str_).tolist()], dtype=np.str_)
    flat, offsets = arrays["flat"], arrays["offsets"].astype(np.int64)
    sizes = arrays["height"].astype(np.int64) * arrays["width"].astype(np.int64)
    if not len(labels) == len(sizes) == len(offsets) - 1:
        raise DataError(
            f"{path}: label has {len(labels)} rows, height and width {len(sizes)}, offsets must have one more than "
            f"label but has {len(offsets)}"
        )
    misfits = np.flatnonzero(
        (np.diff(offsets) != sizes) | (sizes <= 0) | (offsets[:-1] < 0) | (offsets[1:] > len(flat))
    )
    if len(misfits):
        row = int(misfits[0])
        raise DataError(f"{path}: row {row}: offsets give {offsets[row + 1] - offsets[row]} dies, shape {sizes[row]}")
    wrong = np.flatnonzero(flat > 2)
    if len(wrong):
        row = int(np.searchsorted(offsets, wrong[0], side="right")) - 1
        raise DataError(
            f"{path}: row {row}: flat may hold 0 (outside), 1 (passed) and 2 (failed), has {flat[wrong[0]]}"
        )
    grids = [
        flat[start : start + size].reshape(height, -1)
        for start, size, height in zip(offsets[:-1], sizes, arrays["height"].astype(int), strict=True)
    ]
    rows = len(labels)
    groups = arrays["group"] if "group" in arrays else np.arange(rows)
    split = arrays.get("split", np.empty(0, dtype=np.str_))
    for name, column in (("group", groups), ("split", split)):
        if len(column) not in (rows, 0 if name == "split" else rows):
            raise DataError(f"{path}: {name} has {len(column)} rows, label has {rows}")
    return Dataset(path.stem, grids, labels, groups.astype(np.str_), split.astype(np.str_))


def _check_kind(path: Path, name: str, array: NDArray[Any]) -> None:
    expected = {"flat": "u", "label": "US", "group": "USiu", "split": "US"}.get(name, "iu")
    if array.ndim != 1 or array.dtype.kind not in expected or (name == "flat" and array.dtype != np.uint8):
        kinds = {"u": "dies, uint8", "US": "texts", "USiu": "texts or whole numbers", "iu": "whole numbers"}[expected]
        raise DataError(f"{path}: {name} should be one row of {kinds}, is {array.dtype} of the shape {array.shape}")


def write_npz(path: Path, data: Dataset) -> None:
    """Write maps in the form that `read_npz` reads."""
    sizes = np.array([grid.size for grid in data.grids], dtype=np.int64)
    arrays: dict[str, Any] = {
        "flat": np.concatenate([grid.ravel() for grid in data.grids]) if len(data) else np.empty(0, dtype=np.uint8),
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "height": np.array([grid.shape[0] for grid in data.grids], dtype=np.int16),
        "width": np.array([grid.shape[1] for grid in data.grids], dtype=np.int16),
        "label": data.labels,
        "group": data.groups,
    }
    if len(data.split):
        arrays["split"] = data.split
    np.savez_compressed(path, **arrays)
