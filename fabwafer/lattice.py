"""The lattice of dies in a drawing: how many dies the picture holds along each axis."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MOST_DIES = 400


def pitch(labels: NDArray[np.uint8], axis: int) -> tuple[int, int]:
    """Pixels a die along one axis of an unsmoothed drawing, and where the first whole die begins.

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
    """The places along an axis, 1..length-1, where any pixel differs from the one before it."""
    if axis == 0:
        return np.flatnonzero((labels[1:] != labels[:-1]).any(axis=1)) + 1
    return np.flatnonzero((labels[:, 1:] != labels[:, :-1]).any(axis=0)) + 1


@lru_cache(maxsize=64)
def _borders(length: int) -> NDArray[np.bool_]:
    """Where a die may begin when n dies are stretched to `length` pixels by taking the nearest.

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
    """How many dies lie along an axis that was stretched to `length` pixels by taking the nearest.

    Args:
        changes: places where the colour changes.
        length: pixels along the axis; the first die begins at 0 and the last ends there.

    Returns:
        The least number of dies that explains all changes, None where none does.
    """
    if changes.size < 8 or length > 4096:
        return None
    fits = _borders(length)[:, :, changes].all(axis=2).any(axis=0)
    fitting = np.flatnonzero(fits)
    return int(fitting[0]) if fitting.size else None


def periods(pixels: NDArray[np.float32], axis: int) -> list[tuple[int, float]]:
    """Likely numbers of dies along one axis of a smoothed drawing, the likeliest first.

    Smoothing leaves a kink at each die, so the second differences, summed along the other axis, repeat with the
    pitch: a peak in their spectrum. Counts above half the pixels appear folded back, hence both are named.

    Args:
        pixels: float32 [height, width, channels].
        axis: 0 down, 1 across.

    Returns:
        (number of dies, height of its peak as a multiple of the spectrum's median).
    """
    length = pixels.shape[axis]
    if length < 24:
        return []
    profile = np.zeros(length, np.float32)
    profile[1:-1] = np.abs(np.diff(pixels, 2, axis=axis)).sum(axis=(1 - axis, 2))
    spectrum = np.abs(np.fft.rfft(profile - profile.mean()))
    spectrum[:12] = 0
    usual = float(np.median(spectrum[12:]))
    if usual <= 0:
        return []
    peak = int(spectrum.argmax())
    score = float(spectrum[peak]) / usual
    for divisor in (2, 3):
        while peak % divisor == 0 and peak // divisor >= 15 and spectrum[peak // divisor] > 0.35 * spectrum[peak]:
            peak //= divisor
    return [(peak, score), (length - peak, score)] if length - peak <= MOST_DIES else [(peak, score)]
