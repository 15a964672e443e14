"""Retrains the shipped model with 500 reviews of two classes only, and shows what becomes of the others' recall.

Run from the repository's root: `python -m benchmarks.training.retraining wm811k_dev.npz`. The reviews are maps of lots
that the shipped model never saw; recall is measured on the other half of these lots. Three seeds, each with two other
classes.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from benchmarks.training.maps import SEEDS, Results, arguments, split
from fabwafer.models.card import read_card
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from fabwafer_training.commands.retrain import EPOCHS, MAPS_PER_EPOCH
from fabwafer_training.dataset import Dataset, joined
from fabwafer_training.job import Material
from fabwafer_training.metrics import measure
from fabwafer_training.readers import read
from fabwafer_training.report import predict
from fabwafer_training.retrain import go_on
from fabwafer_training.splits import grouped_folds

REVIEWED: Final = (("Edge-Loc", "Loc"), ("Center", "Edge-Loc"), ("Edge-Ring", "Loc"))
"""The two classes of each seed: of these there are 250 maps to review."""
REVIEWS: Final = 500


def reviews_of(data: Dataset, classes: tuple[str, str], seed: int) -> Dataset:
    """Return reviews of two classes, half of each."""
    random = np.random.default_rng(seed)
    rows = [random.choice(np.flatnonzero(data.labels == name), REVIEWS // 2, replace=False) for name in classes]
    return data.subset(np.sort(np.concatenate(rows)))


def main() -> None:
    """Run what is not finished and print the table."""
    asked = arguments(__doc__)
    trained_on, held_out = split(read(asked.data))
    champion = default_model()
    classes = read_card(champion).classes
    half = grouped_folds(held_out.labels, held_out.groups, 2, seed=0)
    to_review, rest = held_out.subset(np.flatnonzero(half == 0)), held_out.subset(np.flatnonzero(half == 1))
    results = Results(asked.results / "retraining.jsonl")
    before = measure(*predict(Classifier(champion), rest), classes)["per_class"]
    for seed, reviewed in zip(SEEDS, REVIEWED, strict=True):
        if results.has(seed=seed):
            continue
        base = joined(trained_on, reviews_of(to_review, reviewed, seed))
        data = joined(base, rest)
        aside = np.arange(len(data)) >= len(base)
        taught = np.arange(len(data)) < len(trained_on)
        material = Material(data, classes, aside, held_out_seed=0, taught=taught)
        with TemporaryDirectory() as folder:
            go_on(
                material,
                champion,
                Path(folder),
                epochs=EPOCHS,
                maps_per_epoch=MAPS_PER_EPOCH,
                seed=seed,
                version=f"seed-{seed}",
                description="",
                tell=print,
                report=print,
            )
            after = measure(*predict(Classifier(Path(folder)), rest), classes)
        results.add(
            {"seed": seed, "reviewed": " and ".join(reviewed), "macro_f1": after["macro_f1"]}
            | {name: figures["recall"] for name, figures in after["per_class"].items()}
        )
    print(f"\nrecall on {len(rest)} maps of lots that neither was trained on\n")
    print(f"| class | maps | before | {' | '.join(row['reviewed'] for row in results.rows)} |")
    print("|---" * (3 + len(results.rows)) + "|")
    for name in classes:
        was = before[name]
        changes = [f"{row[name] - was['recall']:+.3f}" for row in results.rows]
        print(f"| {name} | {was['support']} | {was['recall']:.3f} | {' | '.join(changes)} |")


if __name__ == "__main__":
    main()
