"""WM-811K as pickles: `LSWMD.pkl`, `WM811K.pkl`, and the same columns as plain lists and arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fabwafer_training.dataset import DataError, Dataset
from fabwafer_training.readers.admitted import CategoricalType, Frame, Holder, Index, Manager, load, new_array
from fabwafer_training.readers.wm811k import LABEL, LOT, MAP, SPLIT, assemble


def read_pickle(path: Path) -> Dataset:
    """Read the labelled rows of a pickled table with the columns of WM-811K.

    Raises:
        DataError: The pickle asks for anything but NumPy and pandas containers, or is no such table.
    """
    try:
        return assemble(path, _columns(load(path)))
    except DataError:
        raise
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a pickled table of wafer maps: {reason}") from None


def _columns(content: Any) -> Mapping[str, Sequence[Any]]:
    if isinstance(content, Frame):
        state = content.state
        manager = state.get("_mgr", state.get("_data")) if isinstance(state, dict) else state
        if not isinstance(manager, Manager):
            raise ValueError("its table has no columns")
        return _columns_of_manager(manager)
    if isinstance(content, dict):
        return {str(name): column for name, column in content.items() if hasattr(column, "__len__")}
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = {name: None for row in content for name in row}
        return {name: [row.get(name) for row in content] for name in names}
    raise ValueError(f"it holds {type(content).__name__}, expected a table, a dict of columns or a list of rows")


def _columns_of_manager(manager: Manager) -> Mapping[str, Sequence[Any]]:
    """Take a table's columns from pandas' blocks: arrays [columns of the block, rows] and their places."""
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
        plain = _plain(values)
        if plain is None:
            read = {names[place] for place in where} & {MAP, LABEL, LOT, *SPLIT}
            if read:
                kind = type(values).__name__
                raise ValueError(f"its column {', '.join(read)} is of pandas' kind {kind}, which is not read")
            continue
        rows = [plain] if plain.ndim == 1 else plain
        for name, column in zip((names[place] for place in where), rows, strict=True):
            columns[name] = column
    return columns


def _plain(values: Any) -> Any:
    """Return the one array of a column, also of one of pandas' own kinds; None where there is not just one."""
    if not isinstance(values, Holder):
        return values
    state = values.state
    parts = list(state.values()) if isinstance(state, dict) else list(state or ())
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) != 1:
        return None
    categories = state.get("_categories") if isinstance(state, dict) else None  # before pandas 0.21
    for part in parts:
        if isinstance(part, CategoricalType):
            categories = part.state["categories"]
    if categories is not None:
        # Code -1 is a row without a value.
        return np.array([*_names(categories), ""], dtype=object)[arrays[0]]
    return arrays[0]


def _names(index: Any) -> list[str]:
    if isinstance(index, Index):
        if index.arguments:
            index = _plain(index.arguments[0])
        else:
            index, filled = new_array(), index.state[0]
            index.__setstate__(filled)
    return [str(name) for name in index]
