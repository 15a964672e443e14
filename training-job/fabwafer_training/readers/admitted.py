"""What a pickle from a stranger may build: NumPy arrays of plain values, and stand-ins for whatever pandas has.

A pickle is a program. Here nothing that it names is called: arrays are made by functions of ours, which check what
NumPy itself takes on trust (the fields of a dtype, the length of a list), and every class or function of pandas is
replaced by a stand-in that keeps what it is given and does nothing. So pandas is not needed either, and tables from
versions of it whose modules have moved since are read like new ones.
"""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

PLAIN_KINDS: Final = "biufOSUMm"
"""The dtypes that are admitted, by `numpy.dtype.kind`: numbers, objects, text, times; nothing that has fields."""
_ONLY: Final = "only arrays of plain numbers, texts and objects are admitted"


class Holder:
    """Stands in for a class or function of pandas: keeps its arguments and its state."""

    def __new__(cls, *arguments: Any) -> Self:
        """Make one; not in `__init__`, which unpickling leaves out."""
        holder = super().__new__(cls)
        holder.arguments, holder.state = arguments, None
        return holder

    arguments: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Frame(Holder):
    """A table."""


class Manager(Holder):
    """The blocks of a table's columns."""


class Index(Holder):
    """The names of columns or rows."""


class CategoricalType(Holder):
    """The names that the codes of a categorical column stand for."""


class Dtype:
    """Stands in for `numpy.dtype`, whose own `__setstate__` believes any fields and offsets that it is told."""

    def __init__(self, code: Any, *_align_and_copy: Any) -> None:
        self.plain = np.dtype(code if isinstance(code, str) else code.decode("ascii"))
        if self.plain.kind not in PLAIN_KINDS or self.plain.names or self.plain.subdtype:
            raise pickle.UnpicklingError(f"it has an array of {code!r}, {_ONLY}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, order, subdtype, names, fields = state[:5]
        if subdtype or names or fields:
            raise pickle.UnpicklingError(f"it has an array with fields, {_ONLY}")
        if order in ("<", ">"):
            self.plain = self.plain.newbyteorder(order)


class Array(np.ndarray[Any, Any]):
    """An array that is filled only with what fits into it."""

    def __new__(cls, *_: Any) -> Self:
        """Refuses: a pickle must not lay an array over memory of its choice."""
        raise pickle.UnpicklingError("it makes an array in a way that no array is pickled")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, content = state[-4:]
        if not isinstance(dtype, Dtype):
            raise pickle.UnpicklingError("it has an array without a dtype")
        count = _count(shape)
        if dtype.plain.kind == "O":
            fits = isinstance(content, list) and len(content) == count
        else:
            fits = isinstance(content, (bytes, str)) and len(content) == count * dtype.plain.itemsize
        if not fits:
            raise pickle.UnpicklingError(f"it has an array of the shape {shape} whose content has another size")
        super().__setstate__((1, shape, dtype.plain, bool(fortran), content))  # type: ignore[arg-type]


def _count(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise pickle.UnpicklingError(f"it has an array of the shape {shape!r}")
    return math.prod(shape)


def new_array() -> Array:
    """Make an empty array, to be filled by its `__setstate__`."""
    return np.ndarray.__new__(Array, (0,), np.int8)


def _reconstruct(kind: Any, _shape: Any, _code: Any) -> Any:
    """Make an empty array to be filled; the oldest pandas had its indexes as kinds of arrays."""
    return kind() if isinstance(kind, type) and issubclass(kind, Holder) else new_array()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> Any:
    if not isinstance(dtype, Dtype) or dtype.plain.kind == "O":
        raise pickle.UnpicklingError("it has an array without a plain dtype")
    _count(shape)
    return np.frombuffer(bytes(buffer), dtype.plain).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, Dtype) or dtype.plain.kind == "O":
        raise pickle.UnpicklingError("it has a number without a plain dtype")
    raw = content.encode("latin-1") if isinstance(content, str) else content
    (value,) = np.frombuffer(raw, dtype.plain)
    return value


def _encode(text: str, encoding: str) -> bytes:
    """Return how bytes are pickled for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for a text in {encoding!r}")
    return text.encode("latin-1")


def _no_bytes(*given: Any) -> bytes:
    """Return how no bytes are pickled for Python 2; a number would fill the memory."""
    if given:
        raise pickle.UnpicklingError("it makes bytes in a way that no bytes are pickled")
    return b""


def _new_object(kind: Any, _base: Any, _state: Any) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, Holder)):
        raise pickle.UnpicklingError("it makes an object that is none of pandas")
    return kind()


def _new_index(kind: Any, given: Any) -> Any:
    holder = kind()
    holder.arguments = (given.get("data"),)
    return holder


def _new_block(values: Any, places: Any, *_dimensions: Any) -> tuple[Any, Any]:
    return values, places


class _Partial:
    """Stands in for `functools.partial`, by which pandas 1.3 makes its blocks, and nothing else does."""

    def __init__(self, function: Any) -> None:
        if function is not _new_block:
            raise pickle.UnpicklingError("it asks for functools.partial of something else than pandas' blocks")

    def __setstate__(self, _state: Any) -> None:
        """Only says how many dimensions the block has."""

    def __call__(self, values: Any, places: Any) -> tuple[Any, Any]:
        return _new_block(values, places)


def _admitted() -> Mapping[tuple[str, str], Any]:
    """Return what a pickle gets for what it asks for, by module and name."""
    found: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): _encode,
        ("functools", "partial"): _Partial,
        ("pandas._libs.internals", "_unpickle_block"): _new_block,
        ("pandas.core.internals.blocks", "new_block"): _new_block,
    }
    for module in ("numpy.core", "numpy._core"):
        found |= {
            (f"{module}.multiarray", "_reconstruct"): _reconstruct,
            (f"{module}.multiarray", "scalar"): _scalar,
            (f"{module}.numeric", "_frombuffer"): _from_buffer,
        }
    for module in ("copy_reg", "copyreg"):
        found[module, "_reconstructor"] = _new_object
    for module in ("__builtin__", "builtins"):
        found |= {(module, "slice"): slice, (module, "object"): object, (module, "bytes"): _no_bytes}
    return found


_ADMITTED: Final = _admitted()

_PANDAS: Final = {
    "DataFrame": Frame,
    "BlockManager": Manager,
    "Index": Index,
    "Int64Index": Index,
    "CategoricalDtype": CategoricalType,
    "_new_Index": _new_index,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        if module == "pandas" or module.startswith("pandas."):
            if name == "NA":
                return None
            return _PANDAS.get(name) or type(name, (Holder,), {})
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, only NumPy arrays and pandas tables are admitted")


def load(path: Path) -> Any:
    """Load a pickle.

    Raises:
        pickle.UnpicklingError: It asks for anything else than arrays and pandas.
        Exception: It is damaged; a damaged or hostile pickle can fail in any way.
    """
    with path.open("rb") as file:
        return _Unpickler(file, encoding="latin-1").load()
