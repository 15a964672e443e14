"""Labels that a model contradicts: where a person should look first when labels may be wrong."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fabwafer_training.dataset import Dataset

DRAWN: Final = 50
COLUMNS: Final = 10
COLOURS: Final = ("white", "#cfdceb", "#c0000b")
"""Of what is outside, of passed dies and of failed ones."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A map of which a model says something else than its label.

    Attributes:
        map: What the map is called in its source.
        group: Its lot, or what stands in for one.
        label: What it is labelled as.
        said: What the model says.
        probability: How sure the model is of that.
    """

    map: str
    group: str
    label: str
    said: str
    probability: float


def contradictions(
    probabilities: NDArray[np.float32], targets: NDArray[np.intp], data: Dataset, classes: Sequence[str]
) -> tuple[list[Contradiction], NDArray[np.intp]]:
    """Finds the maps whose label a model contradicts.

    The surer a calibrated model is of another class, the likelier it is the label that is wrong (Northcutt et al.,
    "Confident learning", JAIR 2021), if the model never saw the map: of those it was trained on, it knows the label.

    Args:
        probabilities: What the model says, [n, classes].
        targets: The numbers of the labels, [n].
        data: The n maps.
        classes: The class names.

    Returns:
        The contradictions, the surest first, and the rows of their maps.
    """
    said, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = np.flatnonzero(said != targets)
    rows = rows[np.argsort(-sure[rows], kind="stable")]
    found = [
        Contradiction(
            data.names[row],
            str(data.groups[row]),
            classes[targets[row]],
            classes[said[row]],
            round(float(sure[row]), 4),
        )
        for row in rows.tolist()
    ]
    return found, rows


def write_contradictions(found: Sequence[Contradiction], rows: NDArray[np.intp], data: Dataset, folder: Path) -> None:
    """Writes `contradicted.csv` with all of them, and `contradicted.png` with the surest where there are any."""
    with (folder / "contradicted.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([field.name for field in fields(Contradiction)])
        table.writerows(astuple(one) for one in found)
    if found:
        _draw(found[:DRAWN], [data.grids[row] for row in rows[:DRAWN]], folder / "contradicted.png")


def _draw(found: Sequence[Contradiction], grids: Sequence[NDArray[np.uint8]], path: Path) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(found))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(max(3.0, 1.7 * columns), 2.1 * lines), layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in places:
        axes.axis("off")
    for axes, one, grid in zip(places, found, grids, strict=False):
        axes.imshow(grid, ListedColormap(COLOURS), vmin=0, vmax=2, interpolation="nearest", aspect="auto")
        axes.set_title(f"labelled {one.label}\n{one.said} {one.probability:.0%}", fontsize=8)
    figure.savefig(path, dpi=100)
