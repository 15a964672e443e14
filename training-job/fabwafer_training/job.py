"""One training run from labelled maps to a model's folder."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fabwafer.defects import SHIPPED_CLASSES
from fabwafer.modelcard import ModelCard
from fabwafer_training.augment import draw_many
from fabwafer_training.dataset import DataError, Dataset
from fabwafer_training.package import Kept, package
from fabwafer_training.splits import clean, kept_from_training
from fabwafer_training.train import CHECKPOINT, Round, Settings, train

LEAST_MAPS = 5
"""Maps that a class needs to be learned: below that, nothing of it would be left to measure on."""


def classes_of(data: Dataset) -> list[str]:
    """Returns the classes that occur: those of the shipped model in its order, then a fab's own by name."""
    found = set(data.labels.tolist())
    return [name for name in SHIPPED_CLASSES if name in found] + sorted(found - set(SHIPPED_CLASSES))


def train_model(
    data: Dataset,
    folder: Path,
    settings: Settings,
    about: dict[str, Any],
    *,
    tell: Callable[[str], None],
    report: Callable[[Round], None],
) -> ModelCard:
    """Cleans and splits the maps, trains, calibrates, quantises, and writes the model and its card.

    Run again after a kill with the same arguments, it goes on from the last finished round.

    Args:
        data: Labelled maps.
        folder: Where to write; also holds the checkpoint while training.
        settings: How to train.
        about: The card's `name`, `version`, `description`, `limits`, `notice` and `citations`.
        tell: Called with a sentence now and then.
        report: Called after each round.

    Raises:
        DataError: There are fewer than two classes, or a class has too few maps.
    """
    cleaned, left_out = clean(data)
    tell(
        f"{len(data)} maps; left out {len(left_out.conflicting)} with conflicting labels and "
        f"{len(left_out.repeated)} exact duplicates"
    )
    classes = classes_of(cleaned)
    few = {name: count for name, count in cleaned.counts().items() if count < LEAST_MAPS}
    if len(classes) < 2 or few:
        raise DataError(
            f"{data.name}: training needs at least two classes of at least {LEAST_MAPS} maps, found {cleaned.counts()}"
        )
    kept = kept_from_training(cleaned, settings.seed)
    rows, kept_rows = np.flatnonzero(~kept), np.flatnonzero(kept)
    numbers = {name: number for number, name in enumerate(classes)}
    targets = np.array([numbers[label] for label in cleaned.labels.tolist()], dtype=np.intp)
    absent = sorted({classes[number] for number in set(targets.tolist()) - set(targets[rows].tolist())})
    if absent:
        raise DataError(f"{data.name}: all maps of {', '.join(absent)} are in one group, which cannot be split")
    tell(f"training on {len(rows)} maps, keeping {len(kept_rows)} by group to calibrate and measure; drawing them")
    folder.mkdir(parents=True, exist_ok=True)
    inputs, kept_inputs = draw_many(cleaned.grids, kept, settings.seed)
    network = train(inputs, targets[rows], classes=len(classes), settings=settings, folder=folder, report=report)
    tell("calibrating, exporting and quantising")
    card = package(
        network,
        classes=classes,
        trained_on=cleaned.subset(rows),
        trained_inputs=inputs,
        kept=Kept(kept_inputs, targets[kept_rows], cleaned.groups[kept_rows]),
        folder=folder,
        about=about,
        training=asdict(settings),
    )
    (folder / CHECKPOINT).unlink()
    return card
