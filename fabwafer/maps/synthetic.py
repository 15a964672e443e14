"""Synthetic wafer maps: the nine classes and mixed patterns on any die grid, for tests, demos and fabs without data.

What the patterns look like follows the descriptions in Wu, Jang and Chen (IEEE TSM 28(1), 2015) and real maps looked at
beside them. They are for tests and demos: a model trained on them alone is not fit for real wafers.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fabwafer.defects import NONE, SHIPPED_CLASSES
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED

LARGEST_SIDE: Final = 300
"""Dies along a side of the largest grid."""

MIXABLE: Final = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Scratch")
"""The patterns that may lie over each other on one wafer."""

_Chances = NDArray[np.float64]


class _Wafer:
    """A die grid in polar coordinates about the wafer's centre: radius 0..1 within the wafer, angle in radians."""

    def __init__(self, rows: int, columns: int) -> None:
        down = (np.arange(rows) + 0.5) * 2 / rows - 1
        across = (np.arange(columns) + 0.5) * 2 / columns - 1
        self.y, self.x = np.meshgrid(down, across, indexing="ij")
        self.radius = np.hypot(self.x, self.y)
        self.angle = np.arctan2(self.y, self.x)
        self.inside = self.radius <= 1 + 0.5 / max(rows, columns)
        self.die = 2 / max(rows, columns)
        """A die's longer side, as a share of the wafer's radius."""


def _cloud(wafer: _Wafer, rng: Generator, x: float, y: float, size: float) -> _Chances:
    """Make a spot with a ragged rim: full in the middle, fading over a third of its size, and elliptic."""
    stretch, lean = rng.uniform(0.6, 1.0), rng.uniform(0, math.pi)
    along = (wafer.x - x) * math.cos(lean) + (wafer.y - y) * math.sin(lean)
    beside = ((wafer.y - y) * math.cos(lean) - (wafer.x - x) * math.sin(lean)) / stretch
    distance, angle = np.hypot(along, beside), np.arctan2(beside, along)
    rim = size * (1 + 0.15 * np.sin(3 * angle + rng.uniform(0, 7)) + 0.1 * np.sin(5 * angle + rng.uniform(0, 7)))
    spot: _Chances = np.clip((rim - distance) / (0.35 * size) + 0.5, 0, 1)
    return spot * rng.uniform(0.6, 0.95)


def _center(wafer: _Wafer, rng: Generator) -> _Chances:
    return _cloud(wafer, rng, rng.normal(0, 0.06), rng.normal(0, 0.06), rng.uniform(0.22, 0.45))


def _donut(wafer: _Wafer, rng: Generator) -> _Chances:
    x, y = rng.normal(0, 0.06, 2)
    distance = np.hypot(wafer.x - x, wafer.y - y)
    middle, width = rng.uniform(0.38, 0.58), rng.uniform(0.11, 0.2)
    ring: _Chances = np.clip(1.4 - np.abs(distance - middle) / width, 0, 1)
    ring *= rng.uniform(0.55, 0.95)
    if rng.random() < 0.4:  # some rings are open on one side
        gap = rng.uniform(-math.pi, math.pi)
        ring *= 1 - 0.8 * (np.cos(np.arctan2(wafer.y - y, wafer.x - x) - gap) > rng.uniform(0.6, 0.9))
    return ring


def _near_edge(wafer: _Wafer, rng: Generator, deepest: float) -> _Chances:
    """Dies within some depth of the rim; the depth changes around it, and is a die and a half at least."""
    depth = max(rng.uniform(0.06, deepest), 1.5 * wafer.die)
    depth_around = depth * (1 + 0.3 * np.sin(rng.integers(1, 4) * wafer.angle + rng.uniform(0, 7)))
    rim: _Chances = np.clip((wafer.radius - 1 + depth_around) / (0.3 * depth) + 0.5, 0, 1)
    return rim


def _edge_ring(wafer: _Wafer, rng: Generator) -> _Chances:
    ring = _near_edge(wafer, rng, 0.16) * rng.uniform(0.55, 0.98)
    if rng.random() < 0.3:
        ring *= 1 - 0.85 * (np.cos(wafer.angle - rng.uniform(-math.pi, math.pi)) > rng.uniform(0.7, 0.95))
    return ring


def _edge_loc(wafer: _Wafer, rng: Generator) -> _Chances:
    place, half = rng.uniform(-math.pi, math.pi), rng.uniform(0.25, 0.8)
    away = np.abs((wafer.angle - place + math.pi) % (2 * math.pi) - math.pi)
    return _near_edge(wafer, rng, 0.3) * np.clip((half - away) / 0.15 + 0.5, 0, 1) * rng.uniform(0.6, 0.95)


def _loc(wafer: _Wafer, rng: Generator) -> _Chances:
    distance, place = rng.uniform(0.4, 0.68), rng.uniform(-math.pi, math.pi)
    size = max(rng.uniform(0.12, 0.26), 1.5 * wafer.die)
    return _cloud(wafer, rng, distance * math.cos(place), distance * math.sin(place), size)


def _scratch(wafer: _Wafer, rng: Generator) -> _Chances:
    """Draw a thin line, straight or bent one way, a die wide; here and there it misses a die."""
    length, bend = rng.uniform(0.5, 1.3), rng.normal(0, 1.0)
    start = rng.uniform(-math.pi, math.pi)
    heading = start + math.pi + rng.normal(0, 0.9)  # roughly inwards, so that most of it is on the wafer
    from_centre = rng.uniform(0.1, 0.75)
    steps = np.arange(0, length, wafer.die / 3)
    headings = heading + bend * steps
    x = from_centre * math.cos(start) + np.cumsum(np.cos(headings)) * wafer.die / 3
    y = from_centre * math.sin(start) + np.cumsum(np.sin(headings)) * wafer.die / 3
    rows, columns = wafer.radius.shape
    row, column = np.floor((y + 1) / 2 * rows).astype(int), np.floor((x + 1) / 2 * columns).astype(int)
    on_grid = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    chances = np.zeros(wafer.radius.shape)
    chances[row[on_grid], column[on_grid]] = rng.uniform(0.8, 1.0)
    return chances


def _random(wafer: _Wafer, rng: Generator) -> _Chances:
    return np.full(wafer.radius.shape, rng.uniform(0.3, 0.6))


def _near_full(wafer: _Wafer, rng: Generator) -> _Chances:
    return np.full(wafer.radius.shape, rng.uniform(0.86, 0.98))


def _none(wafer: _Wafer, rng: Generator) -> _Chances:
    return np.zeros(wafer.radius.shape)


_PATTERNS: Final[dict[str, Callable[[_Wafer, Generator], _Chances]]] = {
    "Center": _center,
    "Donut": _donut,
    "Edge-Loc": _edge_loc,
    "Edge-Ring": _edge_ring,
    "Loc": _loc,
    "Near-full": _near_full,
    "Random": _random,
    "Scratch": _scratch,
    NONE: _none,
}


def make(rng: Generator, label: str, rows: int, columns: int, *, outside: bool = True) -> NDArray[np.uint8]:
    """Make one wafer map; see `make_marked`.

    Args:
        rng: Decides everything that is left to chance.
        label: As for `make_marked`.
        rows: Dies from top to bottom, 3 to 300.
        columns: Dies from left to right, 3 to 300.
        outside: Whether dies outside the wafer are told apart; without, they look passed, as on drawings with two
            values.

    Returns:
        The die grid, uint8 [rows, columns]: 0 outside, 1 passed, 2 failed.
    """
    grid, _ = make_marked(rng, label, rows, columns)
    if not outside:
        grid[grid == OUTSIDE] = PASSED
    return grid


def make_marked(rng: Generator, label: str, rows: int, columns: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Make one wafer map, and mark the dies that its pattern made fail.

    Args:
        rng: Decides everything that is left to chance.
        label: One of the nine classes, or a mixed pattern: several of `MIXABLE` joined by `+`, as `Center+Scratch`.
        rows: Dies from top to bottom, 3 to 300.
        columns: Dies from left to right, 3 to 300.

    Returns:
        The die grid, uint8 [rows, columns]: 0 outside, 1 passed, 2 failed; and which of the failed dies would have
        passed without the pattern, bool [rows, columns].

    Raises:
        ValueError: The label or the size is not one of these.
    """
    parts = label.split("+")
    allowed = _PATTERNS if len(parts) == 1 else MIXABLE
    unknown = [part for part in parts if part not in allowed]
    if unknown:
        raise ValueError(f"expected a class or a mix of {', '.join(MIXABLE)} joined by +, got {label!r}")
    if not (3 <= rows <= LARGEST_SIDE and 3 <= columns <= LARGEST_SIDE):
        raise ValueError(f"expected 3 to {LARGEST_SIDE} dies a side, got {rows} x {columns}")
    wafer = _Wafer(rows, columns)
    alone = 1 - rng.uniform(0.005, 0.15)  # single dies fail on every wafer
    passes = np.full(wafer.radius.shape, alone)
    for part in parts:
        passes *= 1 - _PATTERNS[part](wafer, rng)
    luck = rng.random(wafer.radius.shape)
    grid = np.where(luck >= passes, np.uint8(FAILED), np.uint8(PASSED))
    grid[~wafer.inside] = OUTSIDE
    return grid, (grid == FAILED) & (luck < alone)


def sample(seed: int, n: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """Make `n` wafer maps of the nine classes in turn, each with its label, on grids of 25 to 80 dies a side."""
    rng = np.random.default_rng(seed)
    maps = []
    for number in range(n):
        label = SHIPPED_CLASSES[number % len(SHIPPED_CLASSES)]
        rows = int(rng.integers(25, 81))
        columns = min(80, max(25, round(rows * rng.uniform(0.8, 1.25))))
        maps.append((label, make(rng, label, rows, columns)))
    return maps
