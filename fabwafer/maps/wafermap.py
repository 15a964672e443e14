"""Wafer maps as image files: the die grid of a file, and the file of a die grid."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fabwafer.maps.drawing import DIE_GRID, read
from fabwafer.maps.image_file import BadImageError, probe

_GREYS = np.array([0, 127, 255], np.uint8)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Read the die grid from an image file.

    Args:
        data: a PNG or JPEG file with a wafer map drawn in any usual way (see `fabwafer.maps.drawing.read`).

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
