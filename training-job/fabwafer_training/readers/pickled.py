"""WM-811K as pickles: `LSWMD.pkl`, `WM811K.pkl`, and the same columns as plain lists and arrays.

A pickle is a program. Here it may call only what is listed below: what builds NumPy arrays, and stand-ins for the
pandas containers that keep what they are given. pandas itself is not needed, so that tables from old versions of it,
whose modules have moved since, are read like new ones.
"""

import codecs
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from fabwafer_training.dataset import DataError, Dataset
from fabwafer_training.readers.wm811k import assemble


class _Holder:
    """Stands in for a pandas class: keeps its arguments and its state."""

    def __new__(cls, *arguments: Any) -> Self:
        """Makes one; not in `__init__`, which unpickling leaves out."""
        holder = super().__new__(cls)
        holder.arguments, holder.state = arguments, None
        return holder

    arguments: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frame(_Holder):
    """A table."""


class _Manager(_Holder):
    """The blocks of a table's columns."""


class _Index(_Holder):
    """The names of columns or rows."""


class _NoIndex(_Index):
    """Row numbers; nobody asks for them."""


def _reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> Any:
    """Makes an empty array to be filled; the oldest pandas had its indexes as kinds of arrays."""
    return kind() if issubclass(kind, _Index) else np.ndarray(shape, dtype=code)


def _new_index(kind: type, given: dict[str, Any]) -> Any:
    holder = kind()
    holder.arguments = (given.get("data"),)
    return holder


def _new_block(values: Any, places: Any, dimensions: int) -> tuple[Any, Any]:
    return values, places


def _new_object(kind: type[_Holder], _base: type, _state: Any) -> Any:
    return kind()


def _allowed() -> dict[tuple[str, str], Any]:
    """What a pickle may call, by module and name. NumPy's own functions are taken from how it pickles an array now."""
    scalar = np.float64(0).__reduce__()[0]
    frombuffer = np.zeros(1).__reduce_ex__(5)[0]
    found: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,
        ("pandas.core.frame", "DataFrame"): _Frame,
        ("pandas", "DataFrame"): _Frame,
        ("pandas._libs.internals", "_unpickle_block"): _new_block,
    }
    for module in ("numpy.core", "numpy._core"):
        found |= {
            (f"{module}.multiarray", "_reconstruct"): _reconstruct,
            (f"{module}.multiarray", "scalar"): scalar,
            (f"{module}.numeric", "_frombuffer"): frombuffer,
        }
    for module in ("copy_reg", "copyreg"):
        found[module, "_reconstructor"] = _new_object
    for module in ("__builtin__", "builtins"):
        found |= {(module, "slice"): slice, (module, "object"): object, (module, "bytes"): bytes}
    for module in ("pandas.core.internals", "pandas.core.internals.managers", "pandas._libs.internals"):
        found[module, "BlockManager"] = _Manager
    for module in ("pandas.core.index", "pandas.indexes.base", "pandas.core.indexes.base"):
        found |= {(module, "_new_Index"): _new_index, (module, "Index"): _Index, (module, "Int64Index"): _Index}
    for module in ("pandas.indexes", "pandas.core.indexes"):
        found |= {(f"{module}.numeric", "Int64Index"): _Index, (f"{module}.range", "RangeIndex"): _NoIndex}
    return found


_ALLOWED: Final = _allowed()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, only NumPy arrays and pandas tables are admitted"
            ) from None


def read_pickle(path: Path) -> Dataset:
    """Reads the labelled rows of a pickled table with the columns of WM-811K.

    Raises:
        DataError: The pickle asks for anything but NumPy and pandas containers, or is no such table.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin-1").load()
        columns = _columns(content)
    except DataError:
        raise
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        raise DataError(f"{path}: cannot be read as a pickled table of wafer maps: {error}") from None
    return assemble(path, columns)


def _columns(content: Any) -> Mapping[str, Sequence[Any]]:
    if isinstance(content, _Frame):
        state = content.state
        manager = state.get("_mgr", state.get("_data")) if isinstance(state, dict) else state
        return _columns_of_manager(manager)
    if isinstance(content, dict):
        return content
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = {name: None for row in content for name in row}
        return {name: [row.get(name) for row in content] for name in names}
    raise ValueError(f"it holds {type(content).__name__}, expected a table, a dict of columns or a list of rows")


def _columns_of_manager(manager: Any) -> Mapping[str, Sequence[Any]]:
    """Takes a table's columns from pandas' blocks: arrays [columns of the block, rows] and their places."""
    if manager.arguments:  # since pandas 1.3
        blocks, axes = manager.arguments
    else:
        axes, values, items, *newer = manager.state
        if newer:  # since pandas 0.14
            axes = newer[0]["0.14.1"]["axes"]
            blocks = [(block["values"], block["mgr_locs"]) for block in newer[0]["0.14.1"]["blocks"]]
        else:
            all_names = _names(axes[0])
            blocks = [
                (value, [all_names.index(name) for name in _names(item)])
                for value, item in zip(values, items, strict=True)
            ]
    names = _names(axes[0])
    columns: dict[str, Sequence[Any]] = {}
    for values, places in blocks:
        where = range(len(names))[places] if isinstance(places, slice) else [int(place) for place in places]
        for name, column in zip((names[place] for place in where), values, strict=True):
            columns[name] = column
    return columns


def _names(index: Any) -> list[str]:
    if isinstance(index, _Index):
        if index.arguments:
            index = index.arguments[0]
        else:
            index, filled = np.ndarray(0, dtype=object), index.state[0]
            index.__setstate__(filled)
    return [str(name) for name in index]
