"""Augmentation: the other ways a map may be drawn, and the symmetries of a wafer."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import Tensor

from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED
from fabwafer.maps.plausibility import LEAST_DIES
from fabwafer.maps.scaling import CHANNELS, INPUT_SIZE, overlaps, scale

DRAWINGS: Final = ("native", "two-valued", "smoothed", "two-valued and smoothed", "resampled")
"""The ways of drawing that a network is trained on, in the order of `draw_all`."""

DRAWING_SHARES: Final = (0.65, 0.1, 0.1, 0.07, 0.08)
"""How often training uses each. Most cameras send the native one; the others must not change the label."""

OTHER_SIDES: Final = ((10, 22), (150, 300))
"""Dies of the longer side of resampled maps: of wafers with larger dies than usual, and with smaller ones."""


def without_outside(grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grid as a drawing with two values gives it: outside the wafer looks like passed dies."""
    return np.where(grid == FAILED, np.uint8(FAILED), np.uint8(PASSED))


def smoothed(grid: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Return the grid as it is read from a drawing resized with smoothing to rows x columns pixels."""
    pixels = Image.fromarray(grid * np.uint8(127)).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.clip(np.rint(np.asarray(pixels, dtype=np.float32) / 127), 0, 2).astype(np.uint8)


def resampled(grid: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the pattern on a wafer of other dies, as another product would show it, with the same yield.

    The yield must stay: it is what tells Random from Near-full. Of larger dies, those fail that cover the largest
    shares of failed area. Smaller dies fail where they cover a failed one; but of a die that failed with
    at most one neighbour, which no pattern made, about one fails.

    Args:
        grid: Dies, uint8 [rows, columns].
        side: Dies of the longer side afterwards; not less than half of those before, or small patterns vanish.
        rng: Decides between dies of equal shares.
    """
    side = max(side, -(-max(grid.shape) // 2))
    rows, columns = (max(LEAST_DIES, round(dies * side / max(grid.shape))) for dies in grid.shape)
    down, across = overlaps(grid.shape[0], rows), overlaps(grid.shape[1], columns).T
    inside, failed = (grid != OUTSIDE).astype(np.float32), (grid == FAILED).astype(np.float32)
    outside = down @ inside @ across < 0.5
    if side > max(grid.shape):
        padded = np.pad(failed, 1)
        around = sum(padded[i : i + grid.shape[0], j : j + grid.shape[1]] for i in range(3) for j in range(3))
        failed[(failed > 0) & (around <= 2)] = grid.size / (rows * columns)
        fails = rng.random((rows, columns), dtype=np.float32) < down @ failed @ across
    else:
        shares = np.where(outside, 0, down @ failed @ across)
        count = round(float(failed.sum() / max(1.0, inside.sum())) * int((~outside).sum()))
        # By chance between equal shares: what is added is less than any difference of shares.
        order = np.argsort(shares + rng.random((rows, columns)) * 1e-4, axis=None)
        fails = np.zeros((rows, columns), dtype=bool)
        fails.flat[order[order.size - count :]] = True
        fails &= shares > 0
    out = np.where(fails, np.uint8(FAILED), np.uint8(PASSED))
    out[outside] = OUTSIDE
    return out


def _other_side(rng: np.random.Generator) -> int:
    """Draw the longer side of a resampled map, in dies: half of the time 10 to 22, else 150 to 300."""
    least, most = OTHER_SIDES[int(rng.random() < 0.5)]
    return round(math.exp(rng.uniform(math.log(least), math.log(most))))


def draw_all(grid: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Scale a map in each of the ways of drawing it.

    Args:
        grid: Dies, uint8 [rows, columns].
        rng: Draws the size of the smoothed drawings (224 x 224 half of the time, else 0.8 to 4 pixels a die) and of
            the resampled one.

    Returns:
        The network's inputs times 255, uint8 [drawings, channels, size, size].
    """
    if rng.random() < 0.5:
        rows = columns = 224
    else:
        factor = math.exp(rng.uniform(math.log(0.8), math.log(4)))
        rows, columns = (min(512, max(16, round(side * factor))) for side in grid.shape)
    flat = without_outside(grid)
    two_valued_smoothed = without_outside(smoothed((flat == FAILED).astype(np.uint8) * np.uint8(2), rows, columns))
    other = resampled(grid, _other_side(rng), rng)
    drawings = (grid, flat, smoothed(grid, rows, columns), two_valued_smoothed, other)
    inputs = np.stack([scale(drawing) for drawing in drawings])
    return np.rint(inputs * 255).astype(np.uint8)


def draw_many(
    grids: Sequence[NDArray[np.uint8]], held_out: NDArray[np.bool_], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scale maps in each of the ways of drawing them.

    Args:
        grids: Die grids, [n].
        held_out: Which of them are held out from training, [n].
        seed: Seeds the sizes of smoothed drawings.

    Returns:
        The maps to train on and those that are held_out, each uint8 [maps, drawings, channels, size, size].
    """
    rng = np.random.default_rng(seed)
    shape = (len(DRAWINGS), CHANNELS, INPUT_SIZE, INPUT_SIZE)
    sides = tuple(np.empty((int((held_out == side).sum()), *shape), dtype=np.uint8) for side in (False, True))
    filled = [0, 0]
    # The products of scaling are small: several threads would only wait for each other, minutes of a whole data set.
    with threadpool_limits(1):
        for grid, side in zip(grids, held_out.astype(int), strict=True):
            sides[side][filled[side]] = draw_all(grid, rng)
            filled[side] += 1
    return sides[0], sides[1]


def draw_natively(grids: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return the network's inputs of die grids times 255, uint8 [n, channels, size, size]."""
    drawn = np.empty((len(grids), CHANNELS, INPUT_SIZE, INPUT_SIZE), dtype=np.uint8)
    for row, grid in enumerate(grids):
        drawn[row] = np.rint(scale(grid) * 255)
    return drawn


def as_inputs(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return network inputs, float32 in 0..1, from what `draw_all` stores."""
    return stored.astype(np.float32) / np.float32(255)


def turn(maps: Tensor, how: Tensor) -> Tensor:
    """Bring maps into one of a wafer's eight positions: four turns, each seen from the front or mirrored.

    Args:
        maps: Network inputs, float [n, channels, size, size].
        how: Whether each map is mirrored from left to right, from top to bottom, and along its diagonal, bool [n, 3].

    Returns:
        As many maps of the same shape.
    """
    across, down, diagonal = (one[:, None, None, None] for one in how.unbind(1))
    maps = torch.where(across, maps.flip(-1), maps)
    maps = torch.where(down, maps.flip(-2), maps)
    return torch.where(diagonal, maps.transpose(-1, -2), maps)
