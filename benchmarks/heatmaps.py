"""Measures where the heatmap points: on held-out real maps, and on synthetic ones whose pattern dies are known.

Run from the repository's root: `python -m benchmarks.heatmaps wm811k_dev.npz --model model-store/wafer`.

On real maps nobody marked the pattern. Counted is how often the hottest die, and the hottest failed die, lies in the
box of the largest region of failed dies; a die drawn by chance is given beside it. On synthetic maps it is known which
dies failed by the pattern and which alone: counted is how well the heat ranks these two kinds (AUROC).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fabwafer.maps.grid import FAILED, OUTSIDE
from fabwafer.maps.synthetic import make_marked
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from fabwafer_training.metrics import area_under_curve
from fabwafer_training.readers import read
from fabwafer_training.splits import clean, held_out_from_training

REAL = ("Center", "Edge-Loc", "Loc", "Scratch")
SYNTHETIC = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Scratch")
MOST = 300


def box_of_largest_region(grid: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the bounding box of the largest 8-connected region of failed dies."""
    regions, count = ndimage.label(grid == FAILED, structure=np.ones((3, 3)))
    largest = int(np.argmax(ndimage.sum_labels(np.ones(grid.shape), regions, np.arange(1, count + 1))))
    rows, columns = ndimage.find_objects(regions)[largest]
    return rows, columns


def in_the_box(classifier: Classifier, grids: Sequence[NDArray[np.uint8]]) -> tuple[float, float, float]:
    """Return how often the hottest die, the hottest failed die and a die drawn by chance lie in the box."""
    hits = np.zeros(3)
    for grid, answer in zip(grids, classifier.classify_grids(grids, heatmap=True), strict=True):
        assert answer.heatmap is not None
        box = np.zeros(grid.shape, dtype=bool)
        box[box_of_largest_region(grid)] = True
        hottest = np.where(grid != OUTSIDE, answer.heatmap, -np.inf)
        hottest_failed = np.where(grid == FAILED, answer.heatmap, -np.inf)
        hits += box.flat[hottest.argmax()], box.flat[hottest_failed.argmax()], box[grid != OUTSIDE].mean()
    every, failed, chance = hits / len(grids)
    return float(every), float(failed), float(chance)


def ranked(classifier: Classifier, label: str, maps: int) -> tuple[float, float]:
    """Return the mean AUROC of pattern dies against dies that failed alone, and the share of maps named right."""
    rng = np.random.default_rng(0)
    made = [make_marked(rng, label, int(rng.integers(25, 81)), int(rng.integers(25, 81))) for _ in range(maps)]
    areas, right = [], 0
    for (grid, pattern), answer in zip(
        made, classifier.classify_grids([grid for grid, _ in made], heatmap=True), strict=True
    ):
        alone = (grid == FAILED) & ~pattern
        right += answer.label == label
        if answer.label == label and answer.heatmap is not None and pattern.any() and alone.any():
            areas.append(area_under_curve(answer.heatmap[pattern], answer.heatmap[alone]))
    return float(np.mean(areas)), right / maps


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled real maps; those of the lots held out from training are used")
    parser.add_argument("--model", type=Path, action="append", help="by default the shipped one")
    asked = parser.parse_args()
    cleaned, _ = clean(read(asked.data))
    held_out = cleaned.subset(np.flatnonzero(held_out_from_training(cleaned, 0)))
    for folder in asked.model or [default_model()]:
        classifier = Classifier(folder)
        print(f"\n{classifier.card.name} {classifier.card.version}\n")
        print("| class | hottest die in the box | hottest failed die | by chance | AUROC, synthetic | named right |")
        print("|---|---|---|---|---|---|")
        for label in SYNTHETIC:
            area, right = ranked(classifier, label, MOST)
            cells = ["", "", ""]
            if label in REAL:
                rows = np.flatnonzero(held_out.labels == label)[:MOST]
                cells = [f"{share:.0%}" for share in in_the_box(classifier, [held_out.grids[row] for row in rows])]
            print(f"| {label} | {' | '.join(cells)} | {area:.3f} | {right:.0%} |")


if __name__ == "__main__":
    main()
