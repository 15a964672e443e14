"""Reading a die grid from a drawing of a wafer map."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class NotAWaferMapError(ValueError):
    """A fine picture, but not of a wafer map; the message says why not."""


def read(image: Image.Image) -> NDArray[np.uint8]:
    """Read the die grid from a decoded image.

    Raises:
        NotAWaferMapError: the picture is not of a wafer map.
    """
    pixels = np.asarray(image.convert("L"))
    values = np.unique(pixels)
    if values.size > 3 or values.size < 2:
        raise NotAWaferMapError(f"expected two or three colours, got {values.size}")
    grid = np.searchsorted(values, pixels).astype(np.uint8)
    if values.size == 2 and values[1] > 200:
        grid *= 2
    changes = [
        int(np.gcd.reduce(np.append(np.flatnonzero(np.diff(grid, axis=a).any(axis=1 - a)) + 1, grid.shape[a])))
        for a in (0, 1)
    ]
    return grid[:: changes[0], :: changes[1]]
