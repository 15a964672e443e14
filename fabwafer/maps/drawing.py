"""Reading a die grid from a drawing of a wafer map.

A drawing in a few flat colours is read exactly. Any other (JPEG, smoothed by resizing) is read by finding the lattice
of dies, sampling each die's middle, and snapping the samples to the main colours. Either way the grid must then look
like a wafer: what else is drawn in few colours (logos, charts, text, codes) differs in outline, lattice or grain.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fabwafer.maps import lattice, meaning, plausibility, smoothed
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED, Grid, ReadMap, bounding_box
from fabwafer.maps.pixels import Picture, Pixels, numbered, of_image
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.stated_colours import StatedColours

DIE_GRID = ("fabwafer", "one pixel a die")
"""The text, by keyword, in PNG files that hold a die grid and no drawing of one: there is nothing to find out."""

_UNKNOWN = 3
_RAW = np.full(256, _UNKNOWN, np.uint8)
_RAW[[0, 1, 2]] = OUTSIDE, PASSED, FAILED
_NATIVE = np.full(256, _UNKNOWN, np.uint8)
_NATIVE[[0, 127, 128, 254, 255]] = OUTSIDE, PASSED, PASSED, FAILED, FAILED


def read(image: Image.Image, stated: StatedColours | None = None, *, deep: bool = False) -> ReadMap:
    """Read the die grid from a decoded image.

    Args:
        image: any mode that a PNG or JPEG file decodes to.
        stated: which colours mean what, where somebody has stated it.
        deep: whether its file has 16 bits for each channel.

    Returns:
        The grid, uint8 [rows, columns]: 0 outside, 1 passed, 2 failed; margins cut off, but of a file that says
        `DIE_GRID`. And whether its colours leave a doubt about passed and failed.

    Raises:
        NotAWaferMapError: the picture is not of a wafer map.
    """
    picture = of_image(image, deep=deep)
    keyword, text = DIE_GRID
    if image.info.get(keyword) == text and picture.pixels.ndim == 2:
        grid = _NATIVE[picture.pixels]
        if grid.min() < grid.max() <= FAILED:  # in a single colour nothing is drawn, whatever it says
            return ReadMap(plausibility.sized(grid))
    found = _read(picture, stated, jpeg=image.format == "JPEG")
    return ReadMap(np.ascontiguousarray(found.grid), found.doubt or picture.doubt)


def _read(picture: Picture, stated: StatedColours | None, *, jpeg: bool) -> ReadMap:
    flat = numbered(picture.pixels)
    if flat is not None:
        try:
            return _read_flat(*flat, picture.hidden, stated)
        except NotAWaferMapError:
            if len(flat[1]) <= 4:
                raise
    box = _wafer_in_figure(picture.pixels)
    if box is not None:
        return _read(
            replace(picture, pixels=np.ascontiguousarray(picture.pixels[box]), hidden=False), stated, jpeg=jpeg
        )
    # More than a few colours may be a smoothed drawing's.
    return smoothed.read(picture.pixels, jpeg=jpeg, hidden=picture.hidden, stated=stated)


def _wafer_in_figure(pixels: Pixels) -> tuple[slice, slice] | None:
    """Find the wafer among a title, a colour bar or a legend that stand apart from it; None where nothing does."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).reshape(-1, pixels[0, 0].size)
    apart = np.abs(pixels.reshape(*pixels.shape[:2], -1).astype(np.int16) - np.median(border, axis=0)) > 30
    inside = apart.any(axis=2)
    box = found = bounding_box(inside)
    for _ in range(2):  # a colour bar beside hides the gap below a title, and the other way round
        for axis in (1, 0, 1):
            if found is None:
                return None
            found = _largest_band(inside, found, axis)
    if box is None or found is None or found == box or not plausibility.fills_ellipse(inside[found]):
        return None
    # Failed dies alone may lie in clusters apart from each other; what stands beside a wafer is smaller than it.
    large = all(2 * (part.stop - part.start) > whole.stop - whole.start for part, whole in zip(found, box, strict=True))
    return found if large else None


def _largest_band(inside: NDArray[np.bool_], box: tuple[slice, slice], axis: int) -> tuple[slice, slice]:
    """Return the part of a box with the most pixels, of those that empty rows (axis 1) or columns (axis 0) divide."""
    counts = np.count_nonzero(inside[box], axis=axis)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], counts > 0, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    largest = int(np.argmax([counts[start:end].sum() for start, end in zip(starts, ends, strict=True)]))
    first = box[1 - axis].start
    band = slice(first + int(starts[largest]), first + int(ends[largest]))
    return (band, box[1]) if axis == 1 else (box[0], band)


def _outside_of(labels: NDArray[np.uint8]) -> int:
    """Return the colour of the corners, where a wafer is never; of the whole border where the corners differ."""
    corners = np.bincount(labels[[0, 0, -1, -1], [0, -1, 0, -1]])
    if corners.max() > 2:
        return int(corners.argmax())
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    return int(np.bincount(border).argmax())


# -- drawings in a few flat colours ----------------------------------------------------------------------------------


def _read_flat(
    labels: NDArray[np.uint8], colours: NDArray[np.uint8], hidden: bool, stated: StatedColours | None
) -> ReadMap:
    if len(colours) < 2:
        raise NotAWaferMapError("expected a wafer map, got a picture in a single colour")
    outside = _outside_of(labels)
    if len(colours) > 3:
        # A margin in a colour of its own, around the picture of the wafer with its outside.
        inner = labels[bounding_box(labels != outside)]
        if not (inner == outside).any():
            kept = [number for number in range(len(colours)) if number != outside]
            renumbered = np.zeros(len(colours), np.uint8)
            renumbered[kept] = np.arange(len(kept))
            return _read_flat(renumbered[inner], colours[kept], False, stated)
    if stated is not None:
        dies = [number for number in range(len(colours)) if number != outside]
        means, doubt = meaning.stated(
            _outside(colours[outside], hidden), list(colours[dies].astype(np.float32)), stated
        )
        meant = np.zeros(len(colours), np.uint8)
        meant[[outside, *dies]] = means
        return ReadMap(_by_meaning(meant[labels]), doubt)
    grey = bool((colours == colours[:, :1]).all())
    if grey:
        known = _read_known_greys(labels, colours[:, 0], outside)
        if known is not None:
            return known
    if len(colours) == 2:
        return _read_two_colours(labels != outside, colours[outside], colours[1 - outside], grey)
    return _read_colours(labels, colours, outside, hidden)


def _read_known_greys(labels: NDArray[np.uint8], values: NDArray[np.uint8], outside: int) -> ReadMap | None:
    """Read a drawing in native greys or raw values; None where its greys are others, or only two that tell little."""
    for known in (_RAW, _NATIVE):
        means = known[values]
        if means.max() > FAILED or (OUTSIDE in means and means[outside] != OUTSIDE):
            continue
        if np.unique(means).size == 3 or OUTSIDE not in means:
            grid = plausibility.sized(_dies(means[labels])[0])
            if OUTSIDE in means:
                plausibility.check_outline(grid)
            else:  # a full rectangle of dies has no outline to tell it by
                plausibility.check_grain(grid, 1.0)
            return ReadMap(grid)
    if values.max() == 3 and values[outside] == 0:
        grid, pitch = _dies(np.array([OUTSIDE, PASSED, FAILED, PASSED], np.uint8)[values][labels])
        plausibility.check_wafer(plausibility.sized(grid), pitch)
        return ReadMap(
            grid, "expected the values 0, 1 and 2, got 3 as well, which was read as passed (noise, as in MixedWM38)"
        )
    return None


def _read_colours(labels: NDArray[np.uint8], colours: NDArray[np.uint8], outside: int, hidden: bool) -> ReadMap:
    """Read a drawing with an outside and two or more colours of dies."""
    dies = [number for number in range(len(colours)) if number != outside]
    renumbered = np.zeros(len(colours), np.uint8)
    renumbered[dies] = np.arange(1, len(colours))
    grid, pitch = _dies(renumbered[labels])
    counts = np.bincount(grid.ravel(), minlength=len(colours))[1:]
    found = meaning.of_several(
        _outside(colours[outside], hidden), list(colours[dies].astype(np.float32)), counts.tolist()
    )
    grid = np.array([OUTSIDE, *found.values], np.uint8)[grid]
    plausibility.check_wafer(plausibility.sized(grid), pitch)
    if len(dies) > 2:
        plausibility.check_bins(grid, pitch)
    return ReadMap(grid, found.doubt)


def _read_two_colours(
    inside: NDArray[np.bool_], outside: NDArray[np.uint8], colour: NDArray[np.uint8], grey: bool
) -> ReadMap:
    """Read a drawing in two colours: failed dies alone, or a wafer whose dies are all alike."""
    around, value = _outside(outside, hidden=False), colour.astype(np.float32)
    means = meaning.of_one(around, value)
    if not plausibility.whole_disc(inside) or means == FAILED or (grey and int(colour[0]) in (2, 254, 255)):
        grid = _failed_only(inside)
        return ReadMap(grid, meaning.doubt_of_failed_only(around, value, grid))
    grid, pitch = _dies(inside.astype(np.uint8))
    known_passed = grey and int(colour[0]) in (1, 127, 128)
    if pitch == 1 and min(grid.shape) >= 40 and not known_passed:
        raise NotAWaferMapError("expected a wafer map, got a picture of a plain disc")
    return ReadMap(plausibility.sized(grid), "" if means == PASSED else meaning.doubt_of_one(value))


def _outside(colour: NDArray[np.uint8], hidden: bool) -> meaning.Outside:
    return meaning.Outside(colour.astype(np.float32), hidden, "flat")


def _by_meaning(means: NDArray[np.uint8]) -> Grid:
    """Return the grid of a drawing in which the meaning of each pixel is known, uint8 [height, width]."""
    if FAILED in means and not (OUTSIDE in means and PASSED in means):
        return _failed_only(means == FAILED)  # whatever else there is has one colour
    grid, pitch = _dies(means)
    plausibility.check_wafer(plausibility.sized(grid), pitch)
    return grid


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
