"""How good predictions are, from probabilities and true classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabwafer.defects import NONE

NATURAL_NONE_SHARE = 0.85
"""The share of `none`, of good wafers, among the labelled maps of the full WM-811K, to which figures are reweighted."""

BINS = 15


def measure(
    probabilities: NDArray[np.float32],
    targets: NDArray[np.intp],
    classes: Sequence[str],
    weights: Any = None,
    *,
    good: str = NONE,
) -> dict[str, Any]:
    """Measure predictions.

    Args:
        probabilities: Of each class, [n, classes], rows sum to 1.
        targets: The number of the true class, [n].
        classes: The class names in the order of the columns.
        weights: How much each map counts, [n]; by default all the same.
        good: The class of wafers without a defect.

    Returns:
        accuracy, f1_weighted, macro_f1 (over the classes that occur), binary_accuracy, binary_precision and
        binary_recall (a defect or `good`; None where that is no class), worst_class_recall, mean_class_recall,
        top3_accuracy, ece (expected calibration error of the most probable class, 15 bins of equal width),
        missed_as_none (share of defects called `good`), per_class, confusion (rows are true classes) and maps.
    """
    weight = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    predicted = probabilities.argmax(axis=1)
    number = len(classes)
    confusion = np.zeros((number, number))
    np.add.at(confusion, (targets, predicted), weight)
    support, called, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    recall, precision = _ratio(right, support), _ratio(right, called)
    f1 = _ratio(2 * right, support + called)
    occurs = support > 0
    ranks = np.argsort(-probabilities, axis=1, kind="stable")[:, :3]
    result: dict[str, Any] = {
        "maps": len(targets),
        "accuracy": float(right.sum() / confusion.sum()),
        "f1_weighted": float((f1 * support).sum() / support.sum()),
        "macro_f1": float(f1[occurs].mean()),
        "worst_class_recall": float(recall[occurs].min()),
        "mean_class_recall": float(recall[occurs].mean()),
        "top3_accuracy": float((weight * (ranks == targets[:, None]).any(axis=1)).sum() / weight.sum()),
        "ece": calibration_error(probabilities, targets, weight),
        "per_class": {
            name: {
                "precision": float(precision[row]),
                "recall": float(recall[row]),
                "f1": float(f1[row]),
                "support": float(support[row]) if weights is not None else int(support[row]),
            }
            for row, name in enumerate(classes)
        },
        "confusion": (confusion if weights is not None else confusion.astype(int)).tolist(),
    }
    result |= dict.fromkeys(("binary_accuracy", "binary_precision", "binary_recall", "missed_as_none"))
    if good in classes:
        none = list(classes).index(good)
        defect, alarm = targets != none, predicted != none
        hits = float(weight[defect & alarm].sum())
        defects, alarms = float(weight[defect].sum()), float(weight[alarm].sum())
        result |= {
            "binary_accuracy": float(weight[defect == alarm].sum() / weight.sum()),
            "binary_precision": hits / alarms if alarms else 0.0,
            "binary_recall": hits / defects if defects else 0.0,
            "missed_as_none": 1 - hits / defects if defects else 0.0,
        }
    return result


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.zeros_like(top, dtype=np.float64), where=bottom > 0)


def calibration_error(
    probabilities: NDArray[np.float32], targets: NDArray[np.intp], weight: NDArray[np.float64]
) -> float:
    """Return the expected calibration error (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    total = 0.0
    for number in range(BINS):
        rows = bins == number
        if rows.any():
            total += abs(float((weight[rows] * (right[rows].astype(float) - sure[rows])).sum()))
    return total / float(weight.sum())


def natural_weights(targets: NDArray[np.intp], classes: Sequence[str], good: str = NONE) -> NDArray[np.float64] | None:
    """Return weights with which the good wafers have their natural share, or None without them or anything else."""
    if good not in classes:
        return None
    none = targets == list(classes).index(good)
    if none.all() or not none.any():
        return None
    factor = NATURAL_NONE_SHARE / (1 - NATURAL_NONE_SHARE) * (~none).sum() / none.sum()
    return np.where(none, factor, 1.0)


def risk_coverage(
    probabilities: NDArray[np.float32], targets: NDArray[np.intp], points: int = 20
) -> list[dict[str, float]]:
    """Return the risk-coverage curve: the share of maps accepted by probability, and the error rate of these."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = np.cumsum(probabilities.argmax(axis=1)[order] != targets[order])
    sizes = np.unique(np.linspace(1, len(targets), points).round().astype(int))
    return [{"coverage": float(count / len(targets)), "risk": float(wrong[count - 1] / count)} for count in sizes]


def alert_threshold(
    probabilities: NDArray[np.float32],
    targets: NDArray[np.intp],
    classes: Sequence[str],
    precision: float,
    good: str = NONE,
) -> float | None:
    """Return the lowest probability from which on alerts are right often enough.

    An alert is a prediction of a defect with at least that probability; it is right when the map has a defect.

    Returns:
        The threshold, or None where no threshold reaches the precision.
    """
    none = list(classes).index(good) if good in classes else -1
    guessed = probabilities.argmax(axis=1)
    rows = np.flatnonzero(guessed != none)
    if not len(rows):
        return None
    order = rows[np.argsort(-probabilities[rows].max(axis=1), kind="stable")]
    hits = np.cumsum(targets[order] != none) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(hits >= precision)
    return float(probabilities[order[reached[-1]]].max()) if len(reached) else None


def measure_patterns(named: NDArray[np.bool_], shown: NDArray[np.bool_], classes: Sequence[str]) -> dict[str, Any]:
    """Measure which patterns are named on maps that show any number of them.

    Args:
        named: Which are named on each map, [n, classes].
        shown: Which it shows, [n, classes].
        classes: The class names.

    Returns:
        macro_f1 (over the patterns that occur), exact (the share of maps of which all patterns are named and no other),
        f1 of each pattern that occurs, and maps.
    """
    hits = (named & shown).sum(axis=0)
    support = shown.sum(axis=0)
    f1 = _ratio(2.0 * hits, (named.sum(axis=0) + support).astype(np.float64))
    occurs = support > 0
    return {
        "maps": len(shown),
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        "exact": float(np.mean([np.array_equal(*rows) for rows in zip(named, shown, strict=True)]))
        if len(shown)
        else 0.0,
        "f1": {name: float(f1[number]) for number, name in enumerate(classes) if occurs[number]},
    }


def area_under_curve(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Return the probability that a positive score is above a negative one (AUROC); ties count half."""
    _, places, counts = np.unique(np.concatenate([positive, negative]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def recall_at(positive: NDArray[np.float32], negative: NDArray[np.float32], false_alarms: float) -> float:
    """Return the share of positive scores above what `false_alarms`, a share, of the negative ones exceed."""
    return float((positive > np.quantile(negative, 1 - false_alarms)).mean())
