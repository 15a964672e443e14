"""Labels that a model contradicts: where a person should look first when labels may be wrong."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fabwafer_training.dataset import Dataset

DRAWN: Final = 50
ACROSS: Final = 10
COLOURS: Final = ("white", "#cfdceb", "#c0000b")
"""Of what is outside, of passed dies and of failed ones."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A map for which a model predicts another class than its label.

    Attributes:
        row: The map's number among those that the model was asked about.
        map: What the map is called in its source.
        group: Its lot, or what stands in for one.
        label: What it is labelled as.
        predicted: The class that the model predicts.
        probability: Of that class.
    """

    row: int
    map: str
    group: str
    label: str
    predicted: str
    probability: float


def contradictions(
    probabilities: NDArray[np.float32], targets: NDArray[np.intp], data: Dataset, classes: Sequence[str]
) -> list[Contradiction]:
    """Find the maps whose label a model contradicts, the surest first.

    The higher a calibrated model's probability of another class, the likelier the label is wrong (Northcutt et al.,
    "Confident learning", JAIR 2021), if the model was not trained on the map.

    Args:
        probabilities: The model's, [n, classes].
        targets: The numbers of the labels, [n].
        data: The n maps.
        classes: The class names.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = np.flatnonzero(predicted != targets)
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    return [
        Contradiction(
            row,
            data.names[row],
            str(data.groups[row]),
            classes[targets[row]],
            classes[predicted[row]],
            round(float(confidence[row]), 4),
        )
        for row in rows.tolist()
    ]


def write_contradictions(found: Sequence[Contradiction], data: Dataset, folder: Path) -> None:
    """Write `contradicted.csv` with all of them, and `contradicted.png` with the surest where there are any."""
    with (folder / "contradicted.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["map", "group", "label", "predicted", "probability"])
        table.writerows([one.map, one.group, one.label, one.predicted, one.probability] for one in found)
    if found:
        _draw(found[:DRAWN], data, folder / "contradicted.png")


def _draw(found: Sequence[Contradiction], data: Dataset, path: Path) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    colours = ListedColormap(COLOURS)
    columns = min(ACROSS, len(found))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(max(3.0, 1.7 * columns), 2.1 * lines), layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in places:
        axes.axis("off")
    for axes, one in zip(places, found, strict=False):
        axes.imshow(data.grids[one.row], colours, vmin=0, vmax=2, interpolation="nearest", aspect="auto")
        axes.set_title(f"labelled {one.label}\n{one.predicted} {one.probability:.0%}", fontsize=8)
    figure.savefig(path, dpi=100)
