"""The pixels of an image file, opaque and in 8 bits, and the numbers of its colours where it has few."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

MOST_COLOURS: Final = 18
"""Colours of a flat drawing at most: outside, a margin, and the bins of sixteen kinds of dies."""

_SAMPLE: Final = 20_000  # pixels looked at first, so that photos are told from flat drawings at once


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is read: uint8 [height, width] where it is grey, else [height, width, 3].

    `hidden` tells whether its corners are transparent, so that the colour given to them says nothing; `doubt` whether
    colours may have been lost, as a sentence.
    """

    pixels: Pixels
    hidden: bool = False
    doubt: str = ""


def of_image(image: Image.Image, *, deep: bool = False) -> Picture:
    """Return the pixels of an image of any mode that a PNG or JPEG file decodes to.

    Args:
        image: The decoded image.
        deep: Whether its file has 16 bits for each channel.
    """
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" and "transparency" not in image.info:
        return Picture(np.asarray(image))
    if image.mode.startswith("I"):
        return Picture(_in_eight_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        hidden = pixels[[0, 0, -1, -1], [0, -1, 0, -1], 3] < 128
        picture = Picture(_plain(_opaque(pixels)), hidden=bool(np.count_nonzero(hidden) > 2))
    else:
        picture = Picture(_plain(np.asarray(image.convert("RGB"))))
    if deep and picture.pixels.max() < 32:
        # Pillow reads the upper 8 bits of such files.
        sentence = "expected colours of which the upper 8 bits differ, got 16 bits of which they are hardly used"
        return Picture(picture.pixels, picture.hidden, sentence)
    return picture


def _in_eight_bits(wide: NDArray[np.generic]) -> Pixels:
    """Return 16-bit greys in 8 bits: as they are where they fit, else stretched; a few that would merge, by rank."""
    values = np.asarray(wide).astype(np.int64)
    highest = int(values.max())
    if highest <= 255:
        return values.astype(np.uint8)
    levels = np.unique(values)
    stretched = levels * 255 // highest
    if levels.size <= MOST_COLOURS and np.unique(stretched).size < levels.size:
        stretched = np.arange(levels.size) * 255 // (levels.size - 1)
    return np.asarray(stretched.astype(np.uint8)[np.searchsorted(levels, values)])


def _plain(pixels: Pixels) -> Pixels:
    """Return one channel where all three are the same."""
    first = pixels[..., 0]
    if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
        return first
    return pixels


def _opaque(pixels: Pixels) -> Pixels:
    """Give all transparent pixels one colour that nothing visible has: their own, else black, white or magenta."""
    hidden = pixels[..., 3] < 128
    colours = pixels[..., :3]
    if not hidden.any():
        return colours
    visible = colours[~hidden][::7].astype(np.int64)
    own = np.median(colours[hidden], axis=0)
    for colour in (own, (0, 0, 0), (255, 255, 255), (255, 0, 255)):
        if visible.size == 0 or np.abs(visible - np.asarray(colour)).max(axis=1).min() > 60:
            break
    return np.where(hidden[..., None], np.asarray(colour, np.uint8), colours)


def numbered(pixels: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Find the colours of a drawing that has at most `MOST_COLOURS`, and number them.

    Returns:
        (number of each pixel's colour, uint8 [height, width]; the colours, uint8 [k, 3]), or None if there are more.
    """
    if pixels.ndim == 2:
        present = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))
        if present.size > MOST_COLOURS:
            return None
        numbers = np.zeros(256, np.uint8)
        numbers[present] = np.arange(present.size)
        return numbers[pixels], np.repeat(present.astype(np.uint8)[:, None], 3, axis=1)
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    if np.unique(packed.ravel()[:: max(1, packed.size // _SAMPLE)]).size > MOST_COLOURS:
        return None
    labels = np.zeros(packed.shape, np.uint8)
    colours: list[int] = []
    left = np.ones(packed.shape, np.bool_)
    for number in range(MOST_COLOURS):
        colours.append(int(packed.flat[int(left.argmax())]))
        found = packed == colours[-1]
        labels[found] = number
        left &= ~found
        if not left.any():
            return labels, np.array([list(colour.to_bytes(3, "big")) for colour in colours], np.uint8)
    return None
