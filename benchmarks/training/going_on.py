"""Compares going on from a model with training from scratch, on a fab's own few maps and own classes.

Run from the repository's root: `python -m benchmarks.training.going_on wm811k_dev.npz`. The fab is made of lots that
the model never saw, with six classes of its own; as many epochs and maps an epoch either way, three seeds. Measured on
the other half of these lots, as served (int8).
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from benchmarks.training.maps import SEEDS, Results, arguments, split, spread
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from fabwafer_training.dataset import Dataset
from fabwafer_training.job import prepare, train_model, weights_to_go_on_from
from fabwafer_training.metrics import measure
from fabwafer_training.network import Shape
from fabwafer_training.readers import read
from fabwafer_training.report import predict
from fabwafer_training.splits import grouped_folds
from fabwafer_training.train import Settings

OWN: Final = {
    "Center": "spot",
    "Donut": "spot",
    "Loc": "spot",
    "Edge-Loc": "edge",
    "Edge-Ring": "ring",
    "Scratch": "scratch",
    "Random": "scattered",
    "Near-full": "scattered",
    "none": "good",
}
COUNTS: Final = (50, 200, 1000)
EPOCHS: Final = 12


def own_fab(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return the maps of a fab with its own classes: those to choose from for training, and those to measure on."""
    _, held_out = split(data)
    fab = Dataset("own", held_out.grids, np.array([OWN[label] for label in held_out.labels.tolist()]), held_out.groups)
    half = grouped_folds(fab.labels, fab.groups, 2, seed=0)
    return fab.subset(np.flatnonzero(half == 0)), fab.subset(np.flatnonzero(half == 1))


def a_few(data: Dataset, count: int, seed: int) -> Dataset:
    """Return `count` maps, the classes in turn as long as they last."""
    order = np.random.default_rng(seed).permutation(len(data))
    place = np.zeros(len(data), dtype=int)
    for name in np.unique(data.labels):
        rows = order[data.labels[order] == name]
        place[rows] = np.arange(len(rows))
    return data.subset(np.sort(order[np.argsort(place[order], kind="stable")][:count]))


def main() -> None:
    """Run what is not finished, print the table and draw the plot."""
    asked = arguments(__doc__)
    pool, measured_on = own_fab(read(asked.data))
    results = Results(asked.results / "going_on.jsonl")
    for seed in SEEDS:
        for count in COUNTS:
            material = prepare(a_few(pool, count, seed), seed, print)
            for way in ("from the model", "from scratch"):
                if results.has(way=way, seed=seed, maps=count):
                    continue
                start, shape = None, Shape()
                if way == "from the model":
                    start, shape = weights_to_go_on_from(default_model(), material.classes)
                settings = Settings(
                    shape=shape,
                    epochs=EPOCHS,
                    maps_per_epoch=max(1000, 2 * count),
                    seed=seed,
                    gradual=start is not None,
                )
                with TemporaryDirectory() as folder:
                    about = {"name": "own", "version": f"{count}-{seed}"}
                    train_model(material, Path(folder), settings, about, tell=print, report=lambda _: None, start=start)
                    found = measure(*predict(Classifier(Path(folder)), measured_on), material.classes)
                row = {"way": way, "seed": seed, "maps": count}
                results.add(row | {key: found[key] for key in ("macro_f1", "worst_class_recall", "accuracy")})
    print(f"\nmeasured on {len(measured_on)} maps of other lots\n")
    print("| maps | way | macro-F1 | worst recall | accuracy |\n|---|---|---|---|---|")
    for count in COUNTS:
        for way in ("from scratch", "from the model"):
            cells = [
                spread(results.of(key, way=way, maps=count)) for key in ("macro_f1", "worst_class_recall", "accuracy")
            ]
            print(f"| {count} | {way} | {' | '.join(cells)} |")
    _draw(results).savefig(asked.pictures / "going-on.png", dpi=120)


def _draw(results: Results) -> Figure:
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for way, colour in (("from the model", "C0"), ("from scratch", "C1")):
        for count in COUNTS:
            values = results.of("macro_f1", way=way, maps=count)
            axes.plot([count] * len(values), values, "o", color=colour, alpha=0.7)
        axes.plot(COUNTS, [results.of("macro_f1", way=way, maps=n).mean() for n in COUNTS], color=colour, label=way)
    axes.set_xscale("log")
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.set_xlabel("the fab's own maps")
    axes.set_ylabel("macro-F1 on other lots of the fab")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
