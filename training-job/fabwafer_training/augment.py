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
from torch.nn import functional

from fabwafer.maps.grid import FAILED, PASSED
from fabwafer.maps.scaling import CHANNELS, INPUT_SIZE, scale

DRAWINGS: Final = ("native", "two-valued", "smoothed", "two-valued and smoothed")
"""The ways of drawing that a network is trained on, in the order of `draw_all`."""

DRAWING_SHARES: Final = (0.55, 0.15, 0.18, 0.12)
"""How often training uses each. Most cameras send the native one; the others must not change the label."""


def without_outside(grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grid as a drawing with two values gives it: outside the wafer looks like passed dies."""
    return np.where(grid == FAILED, np.uint8(FAILED), np.uint8(PASSED))


def smoothed(grid: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Return the grid as it is read from a drawing resized with smoothing to rows x columns pixels."""
    pixels = Image.fromarray(grid * np.uint8(127)).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.clip(np.rint(np.asarray(pixels, dtype=np.float32) / 127), 0, 2).astype(np.uint8)


def draw_all(grid: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Scale a map in each of the ways of drawing it.

    Args:
        grid: Dies, uint8 [rows, columns].
        rng: Draws the size of the smoothed drawings: 224 x 224 half of the time, else 0.8 to 4 pixels a die.

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
    drawings = (grid, flat, smoothed(grid, rows, columns), two_valued_smoothed)
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


def as_inputs(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return network inputs, float32 in 0..1, from what `draw_all` stores."""
    return stored.astype(np.float32) / np.float32(255)


def turn(maps: Tensor, flat: Tensor) -> Tensor:
    """Turn and mirror maps by the symmetries of a wafer: half of them by quarter turns, the others by any angle.

    Args:
        maps: Network inputs, float [n, channels, size, size].
        flat: Which of them were drawn with two values, bool [n]: all their cells are inside, turned or not.

    Returns:
        As many maps of the same shape. Drawn from torch's global generator.
    """
    count, device = len(maps), maps.device
    mirrored = torch.rand(count, device=device) < 0.5
    maps = torch.where(mirrored[:, None, None, None], maps.flip(-1), maps)
    quarters = torch.randint(0, 4, (count,), device=device)
    for quarter in range(1, 4):
        rows = quarters == quarter
        maps[rows] = maps[rows].rot90(quarter, (-2, -1))
    chosen = torch.nonzero(torch.rand(count, device=device) < 0.5)[:, 0]
    if len(chosen) == 0:
        return maps
    angles = torch.rand(len(chosen), device=device) * (math.pi / 2)
    cosines, sines, zeros = torch.cos(angles), torch.sin(angles), torch.zeros_like(angles)
    matrices = torch.stack([cosines, -sines, zeros, sines, cosines, zeros], dim=1).reshape(-1, 2, 3)
    places = functional.affine_grid(matrices, [len(chosen), *maps.shape[1:]], align_corners=False)
    turned = functional.grid_sample(maps[chosen], places, align_corners=False)
    turned[:, 2] = torch.where(flat[chosen][:, None, None], 1.0, turned[:, 2])
    maps[chosen] = turned
    return maps
