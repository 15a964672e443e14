"""Wafer maps as image files: the die grid of a file, and the file of a die grid."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fabwafer.maps import drawing
from fabwafer.maps.drawing import DIE_GRID
from fabwafer.maps.grid import Grid, ReadMap
from fabwafer.maps.image_file import BadImageError, probe
from fabwafer.maps.stated_colours import StatedColours

_GREYS = np.array([0, 127, 255], np.uint8)


def read(data: bytes, stated: StatedColours | None = None) -> ReadMap:
    """Read the die grid from an image file.

    Args:
        data: a PNG or JPEG file with a wafer map drawn in any usual way (see `fabwafer.maps.drawing.read`).
        stated: which colours mean what, where somebody has stated it.

    Returns:
        The die grid, uint8 [rows, columns], of `OUTSIDE`, `PASSED` and `FAILED`, margins cut off; and whether its
        colours leave a doubt about passed and failed.

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
    return drawing.read(image, stated, deep=_is_deep(data))


def decode(data: bytes) -> Grid:
    """Return the die grid of an image file as `read` does, whatever doubt its colours leave."""
    return read(data).grid


def _is_deep(data: bytes) -> bool:
    """Tell whether a file that was probed has 16 bits for each channel: a PNG says so in its 25th byte."""
    return data.startswith(b"\x89PNG") and data[24] == 16


def encode(grid: NDArray[np.uint8], *, scale: int = 1) -> bytes:
    """Draw a die grid natively: a grey PNG, 0 outside, 127 passed, 255 failed.

    With one pixel a die the file says so (`fabwafer.maps.drawing.DIE_GRID`), and is read as it is: a wafer without a
    passed die, for one, looks like a drawing of failed dies alone.

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
