"""What the comparisons share: some thousand real maps to train on, others of other lots to measure on, one budget."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from fabwafer.maps.scaling import scale
from fabwafer_training.augment import draw_many
from fabwafer_training.calibrate import softmax
from fabwafer_training.dataset import Dataset, numbered
from fabwafer_training.job import classes_of
from fabwafer_training.metrics import measure
from fabwafer_training.readers import read
from fabwafer_training.soft_targets import smooth_labels
from fabwafer_training.splits import clean, held_out_from_training
from fabwafer_training.train import Epoch, Loss, Settings, train

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Maps:
    """Maps to compare ways of training on.

    Attributes:
        classes: The class names.
        inputs: Training maps in each drawing times 255, uint8 [n, drawings, channels, size, size].
        targets: Their classes by number, [n].
        held: Inputs of the maps to measure on, float32 [m, channels, size, size]; no lot is on both sides.
        held_targets: Their classes by number, [m].
    """

    classes: list[str]
    inputs: NDArray[np.uint8]
    targets: NDArray[np.intp]
    held: NDArray[np.float32]
    held_targets: NDArray[np.intp]


def split(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return the maps that the shipped model was trained on, and those that were kept from it."""
    cleaned, _ = clean(data)
    held_out = held_out_from_training(cleaned, 0)
    return cleaned.subset(np.flatnonzero(~held_out)), cleaned.subset(np.flatnonzero(held_out))


def some_lots(data: Dataset, maps: int, seed: int) -> Dataset:
    """Return whole lots drawn by chance, of about as many maps together as asked for."""
    lots = np.random.default_rng(seed).permutation(np.unique(data.groups))
    sizes = np.array([int((data.groups == lot).sum()) for lot in lots])
    chosen = lots[: int(np.searchsorted(np.cumsum(sizes), maps)) + 1]
    return data.subset(np.flatnonzero(np.isin(data.groups, chosen)))


def read_maps(source: str, count: int) -> Maps:
    """Read the maps of a comparison: about `count` to train on, and all that the shipped model never saw."""
    pool, held = split(read(source))
    chosen = some_lots(pool, count, seed=0)
    classes = classes_of(pool)
    inputs, _ = draw_many(chosen.grids, np.zeros(len(chosen), dtype=bool), seed=0)
    return Maps(
        classes,
        inputs,
        numbered(chosen, classes),
        np.stack([scale(grid) for grid in held.grids]),
        numbered(held, classes),
    )


def fit(
    network: nn.Module,
    maps: Maps,
    settings: Settings,
    weights: NDArray[np.float64],
    loss: Loss = functional.cross_entropy,
) -> float:
    """Train a network; return the seconds of its median epoch."""
    done: list[Epoch] = []
    soft_targets = smooth_labels(maps.targets, len(maps.classes), settings.smoothing)
    with TemporaryDirectory() as folder:
        train(
            network,
            maps.inputs,
            soft_targets,
            weights,
            settings=settings,
            folder=Path(folder),
            report=done.append,
            loss=loss,
        )
    return float(np.median([one.seconds for one in done]))


def probabilities(network: nn.Module, maps: Maps) -> NDArray[np.float32]:
    """Return what a network says of the maps to measure on, [m, classes]."""
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(maps.held[start : start + 256])).numpy() for start in range(0, len(maps.held), 256)
        ]
    return softmax(np.concatenate(parts))


def figures(said: NDArray[np.float32], maps: Maps) -> dict[str, float]:
    """Return macro-F1, worst recall and accuracy of probabilities [m, classes] on the maps to measure on."""
    found = measure(said, maps.held_targets, maps.classes)
    return {key: found[key] for key in ("macro_f1", "worst_class_recall", "accuracy", "missed_as_none")}


class Results:
    """Figures of finished runs, a line of JSON each, so that a comparison that was stopped goes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **what: object) -> bool:
        """Tell whether a run is finished."""
        return any(what.items() <= row.items() for row in self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep the figures of a run and print them."""
        self.rows.append(dict(row))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{value}" for key, value in row.items()))

    def of(self, key: str, **what: object) -> NDArray[np.float64]:
        """Return one figure of all runs that are meant."""
        return np.array([row[key] for row in self.rows if what.items() <= row.items()])


def spread(values: NDArray[np.float64], digits: int = 3) -> str:
    """Write figures of several seeds as their mean and half of their range."""
    return f"{values.mean():.{digits}f} ± {np.ptp(values) / 2:.{digits}f}"


def arguments(about: str | None, maps: int = 8000) -> argparse.Namespace:
    """Read the command line that the comparisons share."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled real maps, in any form that fabwafer train reads")
    parser.add_argument("--maps", type=int, default=maps, help="maps to train on")
    parser.add_argument("--results", type=Path, default=Path("build"), help="where finished runs are noted")
    parser.add_argument("--pictures", type=Path, default=Path("docs"), help="where the plots go")
    return parser.parse_args()
