"""Mixed patterns: two or three patterns of real maps laid over each other on one wafer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fabwafer.maps.grid import FAILED, OUTSIDE
from fabwafer.maps.synthetic import MIXABLE
from fabwafer_training.dataset import Dataset

APART: Final = (frozenset({"Center", "Donut"}), frozenset({"Edge-Loc", "Edge-Ring"}))
"""Patterns that are not mixed with each other, as in MixedWM38: the one hides the other."""

THREE_SHARE: Final = 0.25
"""How many of the mixed maps have three patterns, where a third one is found; the others have two."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """Mixed maps: their die grids, and which of the classes each of them shows, bool [n, classes]."""

    grids: list[NDArray[np.uint8]]
    patterns: NDArray[np.bool_]


def mix(data: Dataset, classes: Sequence[str], count: int, seed: int) -> Mixed:
    """Lay the failed dies of maps with the same die grid over each other.

    All pairs of patterns are equally frequent, where maps with a common grid show them. The second and third map are
    mirrored at random.

    Args:
        data: Labelled maps.
        classes: The class names; those that are not in `MIXABLE` are not mixed.
        count: How many to make; none are made where no two patterns share a die grid.
        seed: Decides which.
    """
    rng = np.random.default_rng(seed)
    rows_of = _rows_by_grid(data)
    pairs = _pairs(rows_of)
    made: list[NDArray[np.uint8]] = []
    patterns = np.zeros((count if pairs else 0, len(classes)), dtype=bool)
    names = sorted(pairs)
    for number in range(len(patterns)):
        first, second = names[int(rng.integers(len(names)))]
        shapes, chances = pairs[first, second]
        by_label = rows_of[shapes[int(rng.choice(len(shapes), p=chances))]]
        labels = [first, second]
        thirds = [name for name in by_label if all(_may_mix(name, label) for label in labels)]
        if thirds and rng.random() < THREE_SHARE:
            labels.append(thirds[int(rng.integers(len(thirds)))])
        grids = [data.grids[by_label[label][int(rng.integers(len(by_label[label])))]] for label in labels]
        made.append(_laid_over(grids, rng))
        patterns[number, [classes.index(label) for label in labels]] = True
    return Mixed(made, patterns)


def _laid_over(grids: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    out = grids[0].copy()
    for grid in grids[1:]:
        mirrored = grid[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
        out[(mirrored == FAILED) & (out != OUTSIDE)] = FAILED
    return out


def _may_mix(one: str, other: str) -> bool:
    return one != other and frozenset({one, other}) not in APART


def _rows_by_grid(data: Dataset) -> dict[tuple[int, int], dict[str, list[int]]]:
    """Return the rows of each mixable class, by the shape of the die grid."""
    rows_of: dict[tuple[int, int], dict[str, list[int]]] = {}
    for row, (grid, label) in enumerate(zip(data.grids, data.labels.tolist(), strict=True)):
        if label in MIXABLE:
            rows, columns = grid.shape
            rows_of.setdefault((rows, columns), {}).setdefault(label, []).append(row)
    return rows_of


def _pairs(
    rows_of: dict[tuple[int, int], dict[str, list[int]]],
) -> dict[tuple[str, str], tuple[list[tuple[int, int]], NDArray[np.float64]]]:
    """Return for each pair of patterns the die grids on which both occur, and how often each is to be drawn."""
    found: dict[tuple[str, str], dict[tuple[int, int], int]] = {}
    for shape, by_label in rows_of.items():
        for first in by_label:
            for second in by_label:
                if first < second and _may_mix(first, second):
                    found.setdefault((first, second), {})[shape] = len(by_label[first]) * len(by_label[second])
    return {
        pair: (list(counts), np.array(list(counts.values())) / sum(counts.values())) for pair, counts in found.items()
    }
