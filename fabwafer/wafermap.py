"""Wafer maps: the grid of dies, its drawings, and what can be counted on it."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from fabwafer.drawing import DIE_GRID, NotAWaferMapError, read
from fabwafer.imagefile import MAX_BYTES, MAX_PIXELS, BadImageError, probe
from fabwafer.scaling import CHANNELS, INPUT_SIZE, SCALING_VERSION, scale

__all__ = [
    "CHANNELS",
    "FAILED",
    "INPUT_SIZE",
    "MAX_BYTES",
    "MAX_PIXELS",
    "OUTSIDE",
    "PASSED",
    "SCALING_VERSION",
    "BadImageError",
    "MapCounts",
    "NotAWaferMapError",
    "count",
    "decode",
    "encode",
    "scale",
]

OUTSIDE, PASSED, FAILED = 0, 1, 2
_GREYS = np.array([0, 127, 255], np.uint8)
_EIGHT_NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class MapCounts:
    """What can be counted on a wafer map.

    `rows` and `columns` are the grid's, `passed` and `failed` are dies, `regions` is the number of 8-connected
    regions of failed dies and `largest` the number of dies in the largest of them.
    """

    rows: int
    columns: int
    passed: int
    failed: int
    regions: int
    largest: int


def decode(data: bytes) -> NDArray[np.uint8]:
    """Read the die grid from an image file.

    Args:
        data: a PNG or JPEG file with a wafer map drawn in any usual way (see `fabwafer.drawing.read`).

    Returns:
        The die grid, uint8 [rows, columns], of `OUTSIDE`, `PASSED` and `FAILED`, margins cut off.

    Raises:
        BadImageError: the bytes are no image that is accepted here.
        NotAWaferMapError: a fine picture, but not of a wafer map.
    """
    probe(data)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImageError(f"expected an image that can be decoded, got one that cannot: {error}") from error
    return read(image)


def encode(grid: NDArray[np.uint8], *, scale: int = 1) -> bytes:
    """Draw a die grid natively: a grey PNG, 0 outside, 127 passed, 255 failed.

    With one pixel a die the file says so (`fabwafer.drawing.DIE_GRID`), and is read as it is: a wafer without a passed
    die, for one, looks like a drawing of failed dies alone.

    Args:
        grid: dies, uint8 [rows, columns].
        scale: pixels along each side of a die.

    Returns:
        The bytes of the PNG file.
    """
    pixels = _GREYS[grid]
    if scale > 1:
        pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    about = PngInfo()
    if scale == 1:
        about.add_text(*DIE_GRID)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=about)
    return file.getvalue()


def count(grid: NDArray[np.uint8]) -> MapCounts:
    """Count dies and connected regions of failed dies.

    Args:
        grid: dies, uint8 [rows, columns].
    """
    failed = grid == FAILED
    labels, regions = ndimage.label(failed, _EIGHT_NEIGHBOURS)
    largest = int(np.bincount(labels.ravel())[1:].max()) if regions else 0
    return MapCounts(
        rows=grid.shape[0],
        columns=grid.shape[1],
        passed=int(np.count_nonzero(grid == PASSED)),
        failed=int(np.count_nonzero(failed)),
        regions=int(regions),
        largest=largest,
    )
