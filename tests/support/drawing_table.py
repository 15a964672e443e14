"""How well drawings are read, counted: shared by the tests and by the benchmark that prints the table."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fabwafer.maps.grid import OUTSIDE
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.wafermap import decode, read
from fabwafer.models.classifier import Classifier
from tests.support.drawings import WAYS, Grid
from tests.support.non_wafers import non_wafers


@dataclass
class WayRead:
    """What became of maps drawn in one way.

    `doubted` goes to review for its colours; of `swapped` more than a tenth of the dies are read as the other kind.
    `seconds` is processor time a drawing, so that load does not show.
    """

    maps: int
    refused: list[int] = field(default_factory=list)
    exact: int = 0
    disagreeing: list[int] = field(default_factory=list)
    doubted: list[int] = field(default_factory=list)
    swapped: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """Share of the maps whose label is that of the grid itself; a refused map has none."""
        return 1 - (len(self.refused) + len(self.disagreeing)) / self.maps

    @property
    def silent(self) -> list[int]:
        """Maps that were read wrong without a doubt: passed and failed swapped, or another label."""
        return sorted({*self.swapped, *self.disagreeing} - {*self.doubted})


def read_way(way: str, grids: Sequence[Grid], classifier: Classifier | None, seed: int = 1) -> WayRead:
    """Draw all grids in one way and read the drawings."""
    rng = np.random.default_rng(seed)
    result = WayRead(len(grids))
    inexact: list[int] = []
    grids_read: list[Grid] = []
    for index, grid in enumerate(grids):
        drawing = WAYS[way](grid, rng)
        start = time.thread_time()
        try:
            answer = read(drawing)
        except NotAWaferMapError:
            result.refused.append(index)
            continue
        finally:
            result.seconds.append(time.thread_time() - start)
        found = answer.grid
        if answer.doubt:
            result.doubted.append(index)
        if np.array_equal(found, grid):
            result.exact += 1
        else:
            inexact.append(index)
            grids_read.append(found)
            if _swapped(found, grid):
                result.swapped.append(index)
    if classifier is not None:
        expected = classifier.classify_grids([grids[index] for index in inexact])
        answers = classifier.classify_grids(grids_read)
        result.disagreeing = [
            index for index, one, other in zip(inexact, expected, answers, strict=True) if one.label != other.label
        ]
    return result


def _swapped(found: Grid, grid: Grid) -> bool:
    if found.shape != grid.shape:
        return False
    both = (found != OUTSIDE) & (grid != OUTSIDE)
    return int(np.count_nonzero((found != grid) & both)) > 0.1 * int(np.count_nonzero(both))


def accepted(kind: str, count: int, seed: int) -> list[str]:
    """Return what the non-wafers of one kind show that were taken for wafer maps."""
    taken = []
    for name, data in non_wafers(kind, count, seed):
        try:
            decode(data)
        except NotAWaferMapError:
            continue
        taken.append(name)
    return taken
