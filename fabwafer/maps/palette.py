"""The colours of a wafer map's drawing."""

import math

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float32]

# Luma weights of ITU-R BT.601, those of Pillow's grey and of JPEG.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_SAME = 40.0  # Euclidean distance in RGB below which two colours are one; JPEG and smoothing move a colour by 10 to 30
_MOST_FURTHER = 14  # colours beside the main ones
_LEAST_SHARE = 0.01  # of the dies, that a colour of its own has


def luma(colour: Colour) -> float:
    """Return the luminance of an RGB colour, 0..255."""
    return float(colour @ LUMA)


def grey(colour: Colour, tolerance: float) -> bool:
    """Tell whether a colour is grey, black or white; `tolerance` is the largest difference between its channels."""
    return bool(np.ptp(colour) <= tolerance)


def red(colour: Colour) -> bool:
    """Tell whether a colour is a red, from dark red to salmon; neither orange nor pink."""
    return _hue_within(colour, -18, 20)


def green(colour: Colour) -> bool:
    """Tell whether a colour is a green, from dark green to light green; neither yellow nor cyan."""
    return _hue_within(colour, 75, 165)


def _hue_within(colour: Colour, low: float, high: float) -> bool:
    """Tell whether a colour that is no grey has a hue between two angles (degrees; red 0, green 120, blue 240)."""
    r, g, b = (float(value) for value in colour)
    if max(r, g, b) - min(r, g, b) < max(40.0, 0.25 * max(r, g, b)):
        return False
    hue = math.degrees(math.atan2(math.sqrt(3) * (g - b), 2 * r - g - b))
    return low <= hue <= high


def main_colours(dies: NDArray[np.float32], outside: Colour) -> list[Colour]:
    """Return the one or two main colours beside that of the outside, the more frequent one first.

    Args:
        dies: colours, float32 [n, 3], noisy and partly blends of two main colours.
        outside: the colour of the outside.
    """
    rest = dies[_far(dies, outside)]
    if rest.shape[0] == 0:
        return []
    first = densest(rest)
    rest = rest[_far(rest, first)]
    if rest.shape[0] == 0:
        return [first]
    # A blend of the outside and the first colour lies on the segment between them, a colour of its own beside it.
    way = first - outside
    along = np.clip((rest - outside) @ way / float(way @ way), 0, 1)[:, None]
    aside = np.linalg.norm(rest - outside - along * way, axis=1)
    if aside.max() > _SAME:
        # JPEG scatters colours to all sides, the farthest are the purest.
        return [first, densest(rest[aside > max(_SAME, 0.5 * float(aside.max()))])]
    second = densest(rest)
    cluster = np.count_nonzero(~_far(rest, second))
    if cluster >= max(3, 0.3 * rest.shape[0]):
        return [first, second]
    return [first]


def further_colours(dies: NDArray[np.float32], known: list[Colour], jpeg: bool) -> list[Colour]:
    """Return colours of dies that are neither the known ones nor blends of two of them.

    Args:
        dies: colours, float32 [n, 3], noisy and partly blends.
        known: the colour of the outside, and the main colours.
        jpeg: whether a JPEG file drew them, see `off_blend`.
    """
    found: list[Colour] = []
    least = max(3, _LEAST_SHARE * int(np.count_nonzero(_far(dies, known[0]))))
    rest = dies
    while len(found) < _MOST_FURTHER:
        for end in found[-1:] or known:
            for start in (*known, *found):
                rest = rest[off_blend(rest, start, end, jpeg) > _SAME]
        if rest.shape[0] < least:
            break
        colour = densest(rest)
        if np.count_nonzero(~_far(rest, colour)) < least:
            break
        found.append(colour)
    return found


def off_blend(
    colours: NDArray[np.float32], start: Colour, end: Colour, jpeg: bool, light: float = 1.0, chroma: float = 1.0
) -> NDArray[np.float32]:
    """Return how far colours are from being a blend of two.

    Smoothing blends all channels alike. JPEG keeps the chroma at half the resolution or less, so that a die may have
    its own luminance and the chroma of its neighbours.

    Args:
        colours: float32 [n, 3].
        start: float32 [3], or [n, 3] for one of its own for each.
        end: likewise.
        jpeg: whether luminance and chroma may be blended by different shares.
        light: the largest share of `end` in the luminance.
        chroma: the largest share of `end` in the chroma, of which smoothing knows no other.
    """
    if not jpeg:
        return _off_segment(colours, start, end, chroma)
    lights = [np.expand_dims(part @ LUMA, -1) for part in (colours, start, end)]
    chromas = [part - own for part, own in zip((colours, start, end), lights, strict=True)]
    # The luminance as a length along grey, on which equal channels are sqrt(3) apart.
    off_light = _off_segment(lights[0], lights[1], lights[2], light) * np.sqrt(3)
    return np.asarray(np.hypot(off_light, _off_segment(chromas[0], chromas[1], chromas[2], chroma)), np.float32)


def _off_segment(
    points: NDArray[np.float32], start: NDArray[np.float32], end: NDArray[np.float32], most: float
) -> NDArray[np.float32]:
    way = end - start
    length = np.maximum((way * way).sum(axis=-1), 1e-6)
    share = np.clip(((points - start) * way).sum(axis=-1) / length, 0, most)[..., None]
    return np.asarray(np.linalg.norm(points - start - share * way, axis=-1), np.float32)


def _far(dies: NDArray[np.float32], colour: Colour) -> NDArray[np.bool_]:
    return np.asarray(np.linalg.norm(dies - colour, axis=1) > _SAME)


def densest(dies: NDArray[np.float32]) -> Colour:
    """Return the densest place among colours: the fullest bin of 32 levels a side, then the mean around it, thrice."""
    bins = (dies / 32).astype(np.int64) @ np.array([64, 8, 1])
    colour: Colour = dies[bins == np.bincount(bins).argmax()].mean(axis=0)
    for _ in range(3):
        near = dies[~_far(dies, colour)]
        if near.shape[0]:
            colour = near.mean(axis=0)
    return colour
