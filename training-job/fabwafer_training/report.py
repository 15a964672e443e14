"""Measuring a model on labelled maps, and the report of it: JSON and pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabwafer.models.classifier import Classifier
from fabwafer_training.contradictions import Contradiction, contradictions, write_contradictions
from fabwafer_training.dataset import DataError, Dataset, numbered
from fabwafer_training.metrics import alert_threshold, measure, natural_weights, risk_coverage
from fabwafer_training.seen_maps import SeenMaps, seen_rows


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model measured on labelled maps.

    Attributes:
        data: The maps.
        probabilities: The model's, [n, classes].
        targets: The numbers of their labels, [n].
        figures: What `metrics.measure` returns, and: at_natural_share (the same, reweighted to the natural share of
            good wafers; None where the maps are all good or all defects), risk_coverage, alert (`precision`,
            `threshold`), review (the share of maps that would go to review, and the error rate of the others), model
            and data.
        contradicted: The maps whose label the model contradicts, the surest first.
    """

    data: Dataset
    probabilities: NDArray[np.float32]
    targets: NDArray[np.intp]
    figures: dict[str, Any]
    contradicted: list[Contradiction]


def predict(classifier: Classifier, data: Dataset) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Run a model over maps as a server would.

    Returns:
        The probabilities [n, classes], and the numbers of the true classes [n].

    Raises:
        DataError: A label is none of the model's classes, or there are no maps.
    """
    probabilities, targets, _ = _answers(classifier, data)
    return probabilities, targets


def _answers(classifier: Classifier, data: Dataset) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.bool_]]:
    """Return what `predict` does, and which maps would go to review, [n]."""
    if len(data) == 0:
        raise DataError(f"{data.name}: there are no maps to measure on")
    classes = classifier.card.classes
    unknown = sorted(set(data.labels.tolist()) - set(classes))
    if unknown:
        row = int(np.flatnonzero(data.labels == unknown[0])[0])
        raise DataError(
            f"{data.name}: {data.names[row]}: label {unknown[0]!r} is none of the model's classes "
            f"{', '.join(classes)}; --known-classes leaves such maps out"
        )
    found = classifier.classify_grids(data.grids)
    probabilities, review = np.stack([one.probabilities for one in found]), np.array([one.review for one in found])
    return probabilities, numbered(data, classes), review


def evaluate(classifier: Classifier, data: Dataset, alert_precision: float, seen: SeenMaps | None = None) -> Evaluation:
    """Measure a model on labelled maps.

    Args:
        classifier: The model.
        data: The maps.
        alert_precision: The share of alerts that should be right, for which to find the threshold.
        seen: The maps that the model was trained on; None where that is not known.

    Raises:
        DataError: A label is none of the model's classes.
    """
    probabilities, targets, review = _answers(classifier, data)
    classes = classifier.card.classes
    good = classifier.card.good_class
    figures = measure(probabilities, targets, classes, good=good)
    weights = natural_weights(targets, classes, good)
    wrong = (probabilities.argmax(axis=1) != targets)[~review]
    figures |= {
        "at_natural_share": measure(probabilities, targets, classes, weights, good=good)
        if weights is not None
        else None,
        "risk_coverage": risk_coverage(probabilities, targets),
        "alert": {
            "precision": alert_precision,
            "threshold": alert_threshold(probabilities, targets, classes, alert_precision, good),
        },
        "review": {
            "share": float(review.mean()),
            "error_rate_of_others": float(wrong.mean()) if len(wrong) else 0.0,
        },
        "model": {
            "name": classifier.card.name,
            "version": classifier.card.version,
            "digest": classifier.card.digest,
            "variant": classifier.variant,
            "good": good if good in classes else None,
        },
        "data": {"name": data.name, "sha256": data.digest()},
    }
    figures["trained_on"] = None if seen is None else _trained_on(probabilities, targets, data, classes, good, seen)
    contradicted = contradictions(probabilities, targets, data, classes)
    return Evaluation(data, probabilities, targets, figures, contradicted)


def _trained_on(
    probabilities: NDArray[np.float32],
    targets: NDArray[np.intp],
    data: Dataset,
    classes: Sequence[str],
    good: str,
    seen: SeenMaps,
) -> dict[str, Any]:
    rows = seen_rows(data, seen)
    others = None if rows.all() else measure(probabilities[~rows], targets[~rows], classes, good=good)
    return {"maps": int(rows.sum()), "share": float(rows.mean()), "figures_of_the_others": others}


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.json`, `confusion.png`, `risk-coverage.png`, `contradicted.csv` and `contradicted.png`."""
    from matplotlib.figure import Figure

    result = evaluation.figures
    folder.mkdir(parents=True, exist_ok=True)
    write_contradictions(evaluation.contradicted, evaluation.data, folder)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    names = list(result["per_class"])
    confusion = np.array(result["confusion"], dtype=float)
    rows = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1e-9)
    figure = Figure(figsize=(1.5 + 0.7 * len(names), 1.2 + 0.6 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(rows, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, column in np.ndindex(confusion.shape):
        if confusion[row, column]:
            colour = "white" if rows[row, column] > 0.5 else "black"
            text = f"{confusion[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.savefig(folder / "confusion.png", dpi=120)

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [point["coverage"] for point in result["risk_coverage"]],
        [point["risk"] for point in result["risk_coverage"]],
        marker="o",
        markersize=3,
    )
    axes.set_xlabel("share of maps decided by the model, the surest first")
    axes.set_ylabel("share of these that is wrong")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(folder / "risk-coverage.png", dpi=120)
