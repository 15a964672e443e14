"""WM-811K as MATLAB writes it: a struct array in a MAT file of version 7.3, which is HDF5."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fabwafer_training.dataset import DataError, Dataset
from fabwafer_training.readers.wm811k import LABEL, MAP, assemble


def read_matlab(path: Path) -> Dataset:
    """Read the labelled rows of the struct array that has the fields of WM-811K.

    Raises:
        DataError: The file is not HDF5, or holds no such struct array.
    """
    try:
        with h5py.File(path, "r") as file:
            for value in file.values():
                if isinstance(value, h5py.Group) and MAP in value and LABEL in value:
                    return assemble(path, {name: _column(file, value[name]) for name in value})
            found = [", ".join(value) for value in file.values() if isinstance(value, h5py.Group)]
    except DataError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: expected a MATLAB file of version 7.3 (HDF5): {reason}") from None
    fields = f"; found the fields {'; '.join(found)[:300]}" if any(found) else ""
    raise DataError(f"{path}: found no struct array with the fields {MAP} and {LABEL}{fields}")


def _column(file: h5py.File, field: h5py.Dataset) -> list[Any]:
    """Follow a field's references, one for each element of the struct array."""
    return [_value(file, file[reference]) for reference in field[()].ravel()]


def _value(file: h5py.File, item: h5py.Dataset) -> Any:
    kind = item.attrs.get("MATLAB_class", b"")
    if item.attrs.get("MATLAB_empty", 0):
        return []
    content = item[()]
    if kind == b"char":
        return "".join(chr(code) for code in content.ravel())
    if kind == b"cell":
        return [_value(file, file[reference]) for reference in content.ravel()]
    return np.asarray(content).T  # MATLAB stores columns first
