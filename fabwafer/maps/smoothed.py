"""Reading a die grid from a smoothed or lossy drawing of a wafer map.

Resizing smooths dies into each other and JPEG scatters their colours, yet both keep the lattice: its period is found
in the picture's spectrum, the dies are sampled on it (or the smoothing is undone), and their colours are snapped to
the two or three main ones. Where no lattice explains the picture, each pixel is read as a die.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fabwafer.maps import lattice, meaning, palette, plausibility
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED, Grid, ReadMap, bounding_box
from fabwafer.maps.meaning import Outside
from fabwafer.maps.palette import Colour
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.stated_colours import StatedColours

_LARGE = 1.9  # pixels a die from which on a lattice is found without doubt
_MISFIT_LARGE = 0.06  # dies of five pixels and more: real maps reach 0.055 under JPEG, other pictures have 0.06 to 0.1
_BLOCKS = (8 / 7, 4 / 3, 8 / 5)  # pixels a die to which the 8 x 8 blocks of JPEG and their halves fold
_SMOOTH = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_WAYS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
# Weights that no two usual colours share: equal luminance must not hide an edge.
_MIX = np.array([0.4, 0.35, 0.25], np.float32)


@dataclass(frozen=True)
class _Sampled:
    """Dies sampled from a picture: colours float32 [rows, columns, channels].

    `pitch` is in pixels a die; `misfit` is how far the dies, drawn again, are from the picture, in shares of the
    picture's edges for each pixel of pitch.
    """

    dies: NDArray[np.float32]
    pitch: float
    misfit: float


def read(
    pixels: NDArray[np.uint8], *, jpeg: bool, hidden: bool = False, stated: StatedColours | None = None
) -> ReadMap:
    """Read the die grid from a smoothed or lossy drawing.

    Args:
        pixels: uint8 [height, width], or [height, width, 3].
        jpeg: whether a JPEG file drew them, which has a lattice of its own.
        hidden: whether the outside was transparent, so that its colour says nothing.
        stated: which colours mean what, where somebody has stated it.

    Returns:
        The grid, margins cut off, and whether its colours leave a doubt about passed and failed.

    Raises:
        NotAWaferMapError: the picture is not of a wafer map.
    """
    longest = max(pixels.shape[:2])
    if longest > 1024:  # no wafer has so many dies that fewer pixels would not do
        step = -(-longest // 1024)
        pixels = np.asarray(Image.fromarray(pixels).reduce(step))
    exact = pixels.astype(np.float32)
    exact = exact[..., None] if exact.ndim == 2 else exact
    border = np.concatenate([exact[0], exact[-1], exact[1:-1, 0], exact[1:-1, -1]])
    outside = palette.densest(np.broadcast_to(border, (border.shape[0], 3)))
    found = _sample(exact, jpeg)
    inside = np.any([np.abs(exact[..., k] - outside[k]) > 30 for k in range(exact.shape[2])], axis=0)
    if not inside.any():
        raise NotAWaferMapError("expected a wafer map, got a picture in a single colour")
    box = bounding_box(inside)
    framed = exact[box]
    if framed.shape != exact.shape and min(framed.shape[:2]) >= 2 and inside[box].mean() > 0.98:
        # A margin in a colour of its own, around the picture of the wafer with its outside.
        return read(pixels[box], jpeg=jpeg, stated=stated)
    if framed.shape != exact.shape and (found is None or found.pitch < _LARGE or found.misfit > 0.05):
        # A margin that is no whole number of dies hides the lattice; a much finer one may have been taken for it.
        within = _sample(framed, jpeg)
        if within is not None and (found is None or within.pitch > 1.15 * found.pitch):
            found = within
    dies = exact if found is None else found.dies
    dies = np.repeat(dies, 3, axis=2) if dies.shape[2] == 1 else dies
    return _snap(dies, Outside(outside, hidden, "jpeg" if jpeg else "smoothed"), found, stated)


def _sample(exact: NDArray[np.float32], jpeg: bool) -> _Sampled | None:
    """Find the lattice of dies and sample it; None where no lattice explains the picture.

    On smoothed drawings of real maps the right lattice has a misfit of less than 0.10 edges a pixel of pitch (0.13
    below two pixels a die); wrong ones have 0.13 and more.
    """
    grey = (
        exact[..., 0] if exact.shape[2] == 1 else exact @ (palette.LUMA if jpeg else _MIX)
    )  # JPEG keeps luminance sharper
    best: _Sampled | None = None
    edges = _edges(grey)
    least_misfit, least_pitch = 0.11, 1.05
    across = lattice.periods(grey, 1)
    for rows, columns in [(rows, columns) for rows in lattice.periods(grey, 0) for columns in across]:
        pitch = min(exact.shape[0] / rows, exact.shape[1] / columns)
        if pitch < least_pitch or (jpeg and min(abs(pitch - fold) for fold in _BLOCKS) < 0.015):
            continue
        dies = _middles(grey[..., None], rows, columns)[..., 0]
        misfit = min(_deviation(grey, dies, way) for way in _WAYS) / edges / pitch
        misfit -= 0.03 if pitch < _LARGE else 0.0
        if misfit >= least_misfit:
            continue
        found = _dies_of(exact, grey, edges, rows, columns)
        if found.misfit >= (_MISFIT_LARGE if pitch >= 5 else 0.14):
            continue
        best, least_misfit = found, misfit
        # Much smaller dies fit everything; near two pixels a die, a count and the one it folds to are rivals.
        least_pitch = max(least_pitch, 0.85 * pitch)
        if pitch > 2.4:
            break
    return best


def _dies_of(exact: NDArray[np.float32], grey: NDArray[np.float32], edges: float, rows: int, columns: int) -> _Sampled:
    """Sample the dies of a picture on a known lattice: flat ones by their middles, others by undoing the smoothing."""
    height, width = grey.shape
    pitch = min(height / rows, width / columns)
    # Large flat dies have room for a mean, which is less noisy.
    spread = pitch / 6 if pitch >= 4.5 else 0.0
    best = _deviation(grey, _middles(grey[..., None], rows, columns, spread)[..., 0], Image.Resampling.NEAREST)
    undo = None
    for way in _SMOOTH:
        down, across = lattice.sharpening(rows, height, way), lattice.sharpening(columns, width, way)
        deviation = _deviation(grey, (down @ grey @ across.T).astype(np.float32), way)
        if deviation < best:
            best, undo = deviation, (down, across)
    misfit = best / edges / pitch
    if undo is None:
        return _Sampled(_middles(exact, rows, columns, spread), pitch, misfit)
    planes = [undo[0] @ exact[..., channel] @ undo[1].T for channel in range(exact.shape[2])]
    return _Sampled(np.clip(np.stack(planes, axis=2), 0, 255), pitch, misfit)


def _middles(exact: NDArray[np.float32], rows: int, columns: int, spread: float = 0.0) -> NDArray[np.float32]:
    """Interpolate the colour in the middle of each die; with `spread`, the mean of nine places that far apart."""
    out = exact
    for axis, count in ((0, rows), (1, columns)):
        length = exact.shape[axis]
        middle = (np.arange(count) + 0.5) * (length / count) - 0.5
        offsets = (-spread, 0.0, spread) if spread else (0.0,)
        taken = np.zeros((*out.shape[:axis], count, *out.shape[axis + 1 :]), np.float32)
        for offset in offsets:
            low = np.clip(np.floor(middle + offset).astype(np.intp), 0, length - 2)
            share = np.clip(middle + offset - low, 0, 1).astype(np.float32)
            share = share[:, None, None] if axis == 0 else share[None, :, None]
            taken += out.take(low, axis) * (1 - share) + out.take(low + 1, axis) * share
        out = np.asarray(taken / len(offsets), np.float32)
    return out


def _edges(image: NDArray[np.float32]) -> float:
    """Return the sum of all steps from a pixel to the next one, 1 at the least."""
    steps = float(np.abs(np.diff(image, axis=0)).sum() + np.abs(np.diff(image, axis=1)).sum())
    return max(1.0, steps)


def _deviation(image: NDArray[np.float32], dies: NDArray[np.float32], way: Image.Resampling) -> float:
    """Return the sum of absolute differences between a picture and its dies drawn again at its size."""
    again = Image.fromarray(dies).resize((image.shape[1], image.shape[0]), way)
    return float(np.abs(image - np.asarray(again)).sum())


def _snap(dies: NDArray[np.float32], outside: Outside, found: _Sampled | None, stated: StatedColours | None) -> ReadMap:
    """Snap the colours of sampled dies to the main ones, and return what they mean."""
    flat = dies.reshape(-1, 3)
    colours = palette.main_colours(flat, outside.colour)
    if not colours:
        raise NotAWaferMapError("expected a wafer map, got a picture in a single colour")
    # The main colours come with the more frequent one first.
    if len(colours) == 2 and not meaning.whole_map(outside, colours[0], colours[1], (2, 1)):
        colours += palette.further_colours(flat, [outside.colour, *colours], outside.way == "jpeg")
    distance = np.stack([np.linalg.norm(flat - colour, axis=1) for colour in (outside.colour, *colours)])
    nearest = distance.argmin(axis=0)
    # Pixels that are no dies are blends of dies at worst; dies under strong JPEG, whose colour is coarser than small
    # dies, are further off, but not everywhere.
    limit, share = (25, 0.24) if found is None else (35, 0.25 if found.pitch >= 3 else 0.4)
    if int(np.count_nonzero(distance.min(axis=0) > limit)) > share * int(np.count_nonzero(nearest)):
        raise NotAWaferMapError("expected a wafer map in two or three colours, got a picture in many")
    numbers = nearest.reshape(dies.shape[:2]).astype(np.uint8)
    pitch = plausibility.UNKNOWN_PITCH if found is None else found.pitch
    if stated is not None:
        means, doubt = meaning.stated(outside, colours, stated)
        grid: Grid = np.array(means, np.uint8)[numbers]
    elif len(colours) == 1:
        grid, doubt = _of_one_colour(numbers != OUTSIDE, outside, colours[0])
    else:
        counts = np.bincount(nearest, minlength=len(colours) + 1)[1:].tolist()
        known = meaning.of_several(outside, colours, counts)
        grid, doubt = np.array([OUTSIDE, *known.values], np.uint8)[numbers], known.doubt
    if FAILED in grid and not (PASSED in grid and OUTSIDE in grid):
        grid = plausibility.on_a_wafer(grid == FAILED)
        plausibility.check_failed_only(plausibility.sized(grid), pitch)
        if stated is None:
            doubt = meaning.doubt_of_failed_only(outside, colours[0], grid)
        return ReadMap(grid, doubt)
    drawn = plausibility.sized(grid[bounding_box(grid != OUTSIDE)])
    grid = plausibility.sized(_without_repeats(drawn))
    if found is not None and (min(grid.shape) < 12 or max(grid.shape) < 20):
        raise NotAWaferMapError("expected a wafer map, got a blurred picture without enough dies to tell")
    plausibility.check_wafer(drawn, pitch)
    if len(colours) > 2:
        plausibility.check_bins(drawn, pitch)
    return ReadMap(grid, doubt)


def _without_repeats(grid: Grid) -> Grid:
    """Return a grid without the repeats of a lattice that is finer than the dies.

    Grids of fewer dies than make a spectrum are found by a multiple of their lattice's frequency.
    """
    finer = [int(np.gcd.reduce(np.append(lattice.change_places(grid, axis), grid.shape[axis]))) for axis in (0, 1)]
    return grid[:: finer[0], :: finer[1]]


def _of_one_colour(inside: NDArray[np.bool_], outside: Outside, colour: Colour) -> tuple[Grid, str]:
    """Return the grid of a drawing in two colours, and its doubt: failed dies, or a wafer on which all passed."""
    means = meaning.of_one(outside, colour)
    bright = palette.grey(colour, outside.tolerance) and palette.luma(colour) > 253.5
    if not plausibility.whole_disc(inside) or means == FAILED or bright:
        return np.array([OUTSIDE, FAILED], np.uint8)[inside.astype(np.uint8)], ""
    return inside.astype(np.uint8), "" if means == PASSED else meaning.doubt_of_one(colour)
