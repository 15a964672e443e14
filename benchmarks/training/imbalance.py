"""Compares ways to deal with classes of which there are few maps: macro-F1, worst recall, seconds an epoch.

Run from the repository's root: `python -m benchmarks.training.imbalance wm811k_dev.npz`. A network half as wide as the
shipped one, 8 epochs of 8,000 maps drawn, three seeds; no prior is fitted afterwards, as the shipped model's is.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.training.maps import SEEDS, Maps, Results, arguments, figures, fit, probabilities, read_maps, spread
from fabwafer_training.epochs import even_weights
from fabwafer_training.network import Shape, WaferNet
from fabwafer_training.train import Loss, Settings


@dataclass(frozen=True)
class Way:
    """A way of training: how likely each map is drawn, and the loss."""

    weights: NDArray[np.float64]
    loss: Loss


def focal(logits: Tensor, soft_targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017)."""
    logs = functional.log_softmax(logits, dim=1)
    return -(soft_targets * (1 - logs.exp()) ** gamma * logs).sum(dim=1).mean()


def adjusted(logits: Tensor, soft_targets: Tensor, log_prior: Tensor) -> Tensor:
    """Logit-adjusted loss (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021)."""
    return functional.cross_entropy(logits + log_prior, soft_targets)


def ways(maps: Maps) -> dict[str, Way]:
    """Return the ways that are compared, by name."""
    counts = torch.from_numpy(np.bincount(maps.targets, minlength=len(maps.classes))).float()
    as_they_are = even_weights(maps.targets, 0.0)
    balanced = counts.sum() / (len(counts) * counts)
    return {
        "plain": Way(as_they_are, functional.cross_entropy),
        "class weights": Way(as_they_are, partial(functional.cross_entropy, weight=balanced)),
        "focal": Way(as_they_are, focal),
        "oversampling (all classes alike)": Way(even_weights(maps.targets, 1.0), functional.cross_entropy),
        "sampler (square root, shipped)": Way(even_weights(maps.targets, 0.5), functional.cross_entropy),
        "logit adjustment": Way(as_they_are, partial(adjusted, log_prior=(counts / counts.sum()).log())),
    }


def main() -> None:
    """Run what is not finished, print the table and draw the plot."""
    asked = arguments(__doc__)
    maps = read_maps(asked.data, asked.maps)
    results = Results(asked.results / "imbalance.jsonl")
    for seed in SEEDS:
        for name, way in ways(maps).items():
            if results.has(way=name, seed=seed):
                continue
            settings = Settings(shape=Shape((16, 32, 64)), epochs=8, maps_per_epoch=asked.maps, seed=seed)
            torch.manual_seed(seed)
            network = WaferNet(len(maps.classes), settings.shape)
            seconds = fit(network, maps, settings, way.weights, way.loss)
            results.add({"way": name, "seed": seed, "seconds": seconds} | figures(probabilities(network, maps), maps))
    keys = ("macro_f1", "worst_class_recall", "missed_as_none", "accuracy")
    print(f"\n{len(maps.targets)} maps to train on, {len(maps.held_targets)} of other lots to measure on\n")
    print("| way | macro-F1 | worst recall | defects called none | accuracy | s an epoch |\n|---|---|---|---|---|---|")
    for name in ways(maps):
        cells = [spread(results.of(key, way=name)) for key in keys]
        print(f"| {name} | {' | '.join(cells)} | {np.median(results.of('seconds', way=name)):.1f} |")
    _draw(results, list(ways(maps))).savefig(asked.pictures / "imbalance.png", dpi=120)


def _draw(results: Results, names: list[str]) -> Figure:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for key, label, mark in (("macro_f1", "macro-F1", "o"), ("worst_class_recall", "worst recall", "s")):
        for row, name in enumerate(names):
            values = results.of(key, way=name)
            colour = "C0" if mark == "o" else "C1"
            axes.plot(values, [row] * len(values), mark, color=colour, alpha=0.7, label=label if row == 0 else None)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("on maps of other lots, a mark for each seed")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    main()
