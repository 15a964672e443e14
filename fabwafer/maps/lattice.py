"""The lattice of dies in a drawing: how many dies the picture holds along each axis."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_DIES = 320
_FEWEST = 15  # fewer repeats than this make no spectrum


def pitch(labels: NDArray[np.uint8], axis: int) -> tuple[int, int]:
    """Find the pixels a die along one axis of an unsmoothed drawing, and where the first whole die begins.

    All places where the colour changes lie on the lattice, so the pitch divides every distance between them.

    Args:
        labels: the number of each pixel's colour, uint8 [height, width].
        axis: 0 down, 1 across.
    """
    changes = change_places(labels, axis)
    if changes.size < 2:
        return 1, 0
    size = int(np.gcd.reduce(np.diff(changes)))
    return size, int(changes[0]) % size


def change_places(labels: NDArray[np.uint8], axis: int) -> NDArray[np.intp]:
    """Return the places along an axis, 1..length-1, where any pixel differs from the one before it."""
    if axis == 0:
        return np.flatnonzero((labels[1:] != labels[:-1]).any(axis=1)) + 1
    return np.flatnonzero((labels[:, 1:] != labels[:, :-1]).any(axis=0)) + 1


@lru_cache(maxsize=64)
def _borders(length: int) -> NDArray[np.bool_]:
    """Return where a die may begin when n dies are stretched to `length` pixels by taking the nearest.

    Returns:
        bool [2, length // 1.25, length]: two ways of rounding in use (from the pixel's middle, from its edge), n
        (from 0), place.
    """
    dies = np.arange(min(int(length / 1.25), MOST_DIES) + 1)[:, None]
    places = np.arange(length)[None, :]
    out = np.zeros((2, dies.size, length), np.bool_)
    for way, source in enumerate(((2 * places + 1) * dies // (2 * length), places * dies // length)):
        out[way, :, 1:] = source[:, 1:] != source[:, :-1]
    return out


def uneven_count(changes: NDArray[np.intp], length: int) -> int | None:
    """Return how many dies lie along an axis that was stretched to `length` pixels by taking the nearest.

    Args:
        changes: places where the colour changes.
        length: pixels along the axis; the first die begins at 0 and the last ends there.

    Returns:
        The least number of dies that explains all changes, None where none does.
    """
    if changes.size < 8 or length > 4096:
        return None
    borders = _borders(length)
    exact = np.flatnonzero(borders[:, :, changes].all(axis=2).any(axis=0))
    # A plot's dies may begin anywhere within a pixel: then each border may be one off. Three of a die's pixels may be
    # borders now, so it takes many large dies to rule out chance (odds below e**-20).
    near = borders[0] | np.roll(borders[0], 1, axis=1) | np.roll(borders[0], -1, axis=1)
    loose = [n for n in np.flatnonzero(near[:, changes].all(axis=1)) if changes.size * math.log(length / (3 * n)) > 20]
    return min((int(n) for n in (*exact[:1], *loose[:1])), default=None)


def periods(pixels: NDArray[np.float32], axis: int) -> list[int]:
    """Find likely numbers of dies along one axis of a smoothed drawing, fewer before multiples of them.

    Smoothing leaves a kink at each die, so the second differences, summed along the other axis, repeat with the
    pitch: a peak in their spectrum. Counts above half the pixels appear folded back, hence both are named. Flat dies
    of two pixels have a kink everywhere but steps at every other place: the first differences show those.

    Args:
        pixels: float32 [height, width].
        axis: 0 down, 1 across.

    Only peaks of more than five times the spectrum's median count: those of smoothed drawings of real maps are.
    """
    length = pixels.shape[axis]
    if length < 2 * _FEWEST:
        return []
    found: list[int] = []
    steps = np.diff(pixels, axis=axis)
    for order, differences in ((2, np.diff(steps, axis=axis)), (1, steps)):
        profile = np.zeros(length, np.float32)
        profile[1 : length + 1 - order] = np.abs(differences).sum(axis=1 - axis)
        spectrum = np.abs(np.fft.rfft(profile - profile.mean()))
        spectrum[:_FEWEST] = 0
        usual = float(np.median(spectrum[_FEWEST:]))
        peak = int(spectrum.argmax())
        if spectrum[peak] <= 5 * usual:
            continue
        # JPEG's blocks and sharp dies strengthen multiples of the lattice's own frequency.
        parts = (peak // part for part in (6, 4, 3, 2) if peak % part == 0 and peak // part >= _FEWEST)
        likely = [count for count in parts if spectrum[count] > 0.15 * spectrum[peak]]
        found += [n for n in (*likely, peak, length - peak) if n <= MOST_DIES and n not in found]
    return found


@lru_cache(maxsize=64)
def sharpening(dies: int, length: int, way: Image.Resampling) -> NDArray[np.float32]:
    """Undo smoothing along one axis: the least-squares inverse of enlarging `dies` values to `length` pixels.

    Returns:
        float32 [dies, length]. A touch of damping (1e-3 of a pixel's weight) keeps noise down where a die is hardly
        larger than a pixel and the inverse is nearly singular.
    """
    each = Image.fromarray(np.eye(dies, dtype=np.float32))
    smoothing = np.asarray(each.resize((length, dies), way), np.float64).T
    inverse = np.linalg.solve(smoothing.T @ smoothing + 1e-3 * np.eye(dies), smoothing.T)
    return np.asarray(inverse, np.float32)
