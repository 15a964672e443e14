"""Reading a die grid from a drawing of a wafer map.

A drawing in a few flat colours is read exactly. Any other (JPEG, smoothed by resizing) is read by finding the lattice
of dies, sampling each die's middle, and snapping the samples to the main colours. Either way the grid must then look
like a wafer: what else is drawn in few colours (logos, charts, text, codes) differs in outline, lattice or grain.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fabwafer.maps import lattice, palette, plausibility, smoothed
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED, bounding_box
from fabwafer.maps.plausibility import Grid, NotAWaferMapError

Pixels = NDArray[np.uint8]

DIE_GRID = ("fabwafer", "one pixel a die")
"""The text, by keyword, in PNG files that hold a die grid and no drawing of one: there is nothing to find out."""

_UNKNOWN = 3
_RAW = np.full(256, _UNKNOWN, np.uint8)
_RAW[[0, 1, 2]] = OUTSIDE, PASSED, FAILED
_NATIVE = np.full(256, _UNKNOWN, np.uint8)
_NATIVE[[0, 127, 128, 254, 255]] = OUTSIDE, PASSED, PASSED, FAILED, FAILED


def read(image: Image.Image) -> Grid:
    """Read the die grid from a decoded image.

    Args:
        image: any mode that a PNG or JPEG file decodes to.

    Returns:
        uint8 [rows, columns]: 0 outside, 1 passed, 2 failed; margins cut off, but of a file that says `DIE_GRID`.

    Raises:
        NotAWaferMapError: the picture is not of a wafer map.
    """
    pixels = _pixels(image)
    keyword, text = DIE_GRID
    if image.info.get(keyword) == text and pixels.ndim == 2:
        grid = _NATIVE[pixels]
        if grid.min() < grid.max() <= FAILED:  # in a single colour nothing is drawn, whatever it says
            return plausibility.sized(grid)
    flat = _flat(pixels)
    if flat is not None:
        return np.ascontiguousarray(_read_flat(*flat))
    return np.ascontiguousarray(smoothed.read(pixels, jpeg=image.format == "JPEG"))


# -- pixels and colours ----------------------------------------------------------------------------------------------


def _pixels(image: Image.Image) -> Pixels:
    """Return the image as uint8 [height, width] where it is grey, else [height, width, 3]."""
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I"):  # 16-bit grey
        wide = np.asarray(image)
        return (wide >> 8 if wide.max() > 255 else wide).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _opaque(np.asarray(image.convert("RGBA")))
    pixels = np.asarray(image.convert("RGB"))
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


def _flat(pixels: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Find the colours of a drawing that has at most four, and number them.

    Returns:
        (number of each pixel's colour, uint8 [height, width]; the colours, uint8 [k, 3]), or None if there are more.
    """
    if pixels.ndim == 2:
        present = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))
        if present.size > 4:
            return None
        numbers = np.zeros(256, np.uint8)
        numbers[present] = np.arange(present.size)
        return numbers[pixels], np.repeat(present.astype(np.uint8)[:, None], 3, axis=1)
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    labels = np.zeros(packed.shape, np.uint8)
    colours: list[int] = []
    left = np.ones(packed.shape, np.bool_)
    for number in range(4):
        colours.append(int(packed.flat[int(left.argmax())]))
        found = packed == colours[-1]
        labels[found] = number
        left &= ~found
        if not left.any():
            return labels, np.array([list(colour.to_bytes(3, "big")) for colour in colours], np.uint8)
    return None


def _outside_of(labels: NDArray[np.uint8]) -> int:
    """Return the colour of the corners, where a wafer is never; of the whole border where the corners differ."""
    corners = np.bincount(labels[[0, 0, -1, -1], [0, -1, 0, -1]])
    if corners.max() > 2:
        return int(corners.argmax())
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    return int(np.bincount(border).argmax())


# -- drawings in a few flat colours ----------------------------------------------------------------------------------


def _read_flat(labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Grid:
    if len(colours) < 2:
        raise NotAWaferMapError("expected a wafer map, got a picture in a single colour")
    outside = _outside_of(labels)
    if len(colours) == 4:
        # A margin in a colour of its own, around the picture of the wafer with its outside.
        inner = labels[bounding_box(labels != outside)]
        if (inner == outside).any():
            raise NotAWaferMapError("expected a wafer map in two or three colours, got a picture in four")
        kept = [number for number in range(4) if number != outside]
        renumbered = np.zeros(4, np.uint8)
        renumbered[kept] = np.arange(3)
        return _read_flat(renumbered[inner], colours[kept])
    grey = bool((colours == colours[:, :1]).all())
    for known in (_RAW, _NATIVE) if grey else ():
        meaning = known[colours[:, 0]]
        if meaning.max() > FAILED or (OUTSIDE in meaning and meaning[outside] != OUTSIDE):
            continue
        if np.unique(meaning).size == 3 or OUTSIDE not in meaning:
            grid = plausibility.sized(_dies(meaning[labels])[0])
            if OUTSIDE in meaning:
                plausibility.check_outline(grid)
            else:  # a full rectangle of dies has no outline to tell it by
                plausibility.check_grain(grid, 1.0)
            return grid
    inside = labels != outside
    if len(colours) == 3:
        one, other = (number for number in range(3) if number != outside)
        meaning = np.full(3, PASSED, np.uint8)
        meaning[outside] = OUTSIDE
        values = colours.astype(np.float32)
        meaning[one if palette.failed_first(values[outside], values[one], values[other]) else other] = FAILED
        grid, pitch = _dies(meaning[labels])
        plausibility.check_wafer(plausibility.sized(grid), pitch)
        return grid
    value = colours[1 - outside]
    if plausibility.all_passed(inside, value, grey):
        grid, pitch = _dies(inside.astype(np.uint8))
        known_passed = grey and int(value[0]) in (1, 127, 128)
        if pitch == 1 and min(grid.shape) >= 40 and not known_passed:
            raise NotAWaferMapError("expected a wafer map, got a picture of a plain disc")
        return plausibility.sized(grid)
    return _failed_only(inside)


def _dies(labels: NDArray[np.uint8]) -> tuple[Grid, float]:
    """Return one value a die without margins, from one a pixel, and the pixels a die has along the shorter axis."""
    labels = labels[bounding_box(labels != OUTSIDE)]
    picks, pitches = [], []
    for axis in (0, 1):
        length = labels.shape[axis]
        changes = lattice.change_places(labels, axis)
        size = int(np.gcd.reduce(np.append(changes, length)))
        count = length // size
        if size == 1 and length >= 64:
            count = lattice.uneven_count(changes, length) or length
        picks.append((2 * np.arange(count) + 1) * length // (2 * count))
        pitches.append(length / count)
    return labels[np.ix_(*picks)], min(pitches)


def _failed_only(failed: NDArray[np.bool_]) -> Grid:
    """Return the grid of a drawing that shows failed dies alone: the wafer is taken to fill the picture."""
    picks, pitches = [], []
    for axis in (0, 1):
        length = failed.shape[axis]
        changes = lattice.change_places(failed.view(np.uint8), axis)
        size, phase = lattice.pitch(failed.view(np.uint8), axis)
        if size == 1 and length >= 64:
            count = lattice.uneven_count(changes, length) or length
            picks.append((2 * np.arange(count) + 1) * length // (2 * count))
            pitches.append(length / count)
        else:
            picks.append(np.arange(phase + size // 2 if phase == 0 else phase - size + size // 2, length, size))
            picks[-1] = picks[-1][picks[-1] >= 0]
            pitches.append(size)
    grid = plausibility.sized(plausibility.on_a_wafer(failed[np.ix_(*picks)]))
    plausibility.check_failed_only(grid, min(pitches))
    return grid
