"""The colours of a wafer map's drawing, and which of them means what."""

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float32]

# Luma weights of ITU-R BT.601, those of Pillow's grey and of JPEG.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# Colour maps along which luminance does not tell the order: both ends are dark and the middle is light (or the other
# way round). Their colours at 0, 1/2 and 1, or the first three of a list, as matplotlib 3.10 defines them. Each is
# also looked for from its other end.
_UNORDERED = {
    "BrBG": "543005 f4f4f4 003c30",
    "PRGn": "40004b f6f6f6 00441b",
    "PiYG": "8e0152 f6f6f6 276419",
    "PuOr": "7f3b08 f6f6f6 2d004b",
    "RdBu": "67001f f6f6f6 053061",
    "RdGy": "67001f fefefe 1a1a1a",
    "RdYlBu": "a50026 fefec0 313695",
    "RdYlGn": "a50026 fefebd 006837",
    "Set1": "e41a1c 377eb8 4daf4a",
    "Spectral": "9e0142 fefebe 5e4fa2",
    "berlin": "9eaffe 190b08 feadad",
    "bwr": "0000ff fffefe ff0000",
    "coolwarm": "3a4cc0 dddcdb b30326",
    "gist_rainbow": "ff0028 00ff8b ff00bf",
    "jet": "00007f 7cff79 7f0000",
    "rainbow": "7f00ff 80feb3 ff0000",
    "seismic": "00004c fffdfd 7f0000",
    "tab10": "1f77b4 ff7f0e 2ca02c",
    "terrain": "333399 fefd98 ffffff",
    "turbo": "30123b a4fc3b 7a0402",
}
_TRIPLES = np.array(
    [[list(bytes.fromhex(colour)) for colour in colours.split()] for colours in _UNORDERED.values()], np.float32
)
_TRIPLES = np.concatenate([_TRIPLES, _TRIPLES[:, ::-1]])
_SAME = 40.0  # Euclidean distance in RGB below which two colours are one; JPEG and smoothing move a colour by 10 to 30


def luma(colour: Colour) -> float:
    """Return the luminance of an RGB colour, 0..255."""
    return float(colour @ LUMA)


def _red(colour: Colour) -> bool:
    return bool(colour[0] > 1.5 * max(float(colour[1]), float(colour[2])) + 20)


def _green(colour: Colour) -> bool:
    return bool(colour[1] > 1.25 * max(float(colour[0]), float(colour[2])) + 20)


def reddish(colour: Colour) -> bool:
    """Tell whether a lone colour inside the wafer is one in which people draw failures."""
    return _red(colour)


def failed_first(outside: Colour, one: Colour, other: Colour) -> bool:
    """Tell whether `one` is the colour of the failed dies and `other` that of the passed ones.

    The failed colour is the one whose luminance is furthest from the outside's. Luminance misleads in the well-known
    colour maps that are darkest, or lightest, at both ends, which are recognised by their colours, and where red
    stands against green, or against anything that is about as far from the outside: red is then what failed.
    """
    drawn = np.stack([outside, one, other])
    for order in ([0, 1, 2], [0, 2, 1]):
        if np.linalg.norm(_TRIPLES - drawn[order], axis=2).max(axis=1).min() < _SAME:
            return order[2] == 1
    if _red(one) != _red(other):
        red, rest = (one, other) if _red(one) else (other, one)
        near, far = sorted((abs(luma(red) - luma(outside)), abs(luma(rest) - luma(outside))))
        if _green(rest) or near < 45 or far < 1.5 * near:
            return red is one
    return abs(luma(one) - luma(outside)) > abs(luma(other) - luma(outside))


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
