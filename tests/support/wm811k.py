"""Where tests find real wafer maps: they belong to the user and are never part of the project."""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


def path() -> Path:
    """Return the file with real maps; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "wm811k" / "wm811k_dev.npz"
    found = Path(os.environ.get("FABWAFER_WM811K", beside))
    if not found.exists():
        pytest.skip("needs real wafer maps: set FABWAFER_WM811K to the file wm811k_dev.npz")
    return found


@lru_cache(maxsize=1)
def _arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}


def maps(rows: NDArray[np.intp] | list[int]) -> list[NDArray[np.uint8]]:
    """Return the die grids of the given rows."""
    arrays = _arrays(path())
    flat, offsets = arrays["flat"], arrays["offsets"]
    return [flat[offsets[row] : offsets[row + 1]].reshape(arrays["height"][row], -1).astype(np.uint8) for row in rows]


def labels() -> NDArray[np.str_]:
    """Return the class of every row."""
    return _arrays(path())["label"].astype(np.str_)
