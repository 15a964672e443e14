"""Calibration of probabilities, logits and review thresholds, on maps that the network was not trained on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from fabwafer_training.metrics import measure


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the probabilities [n, classes] of logits [n, classes] divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32)


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[np.intp]) -> float:
    """Return the temperature with the highest likelihood (Guo et al., ICML 2017), between 0.2 and 5."""

    def loss(temperature: float) -> float:
        chosen = softmax(logits, temperature)[np.arange(len(targets)), targets]
        return float(-np.log(np.maximum(chosen, 1e-12)).mean())

    return float(minimize_scalar(loss, bounds=(0.2, 5.0), method="bounded").x)


def log_prior(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the logarithm of the class frequencies, with mean 0, [classes]."""
    logs = np.log(counts / counts.sum())
    prior: NDArray[np.float32] = (logs - logs.mean()).astype(np.float32)
    return prior


def fit_prior(
    logits: NDArray[np.float32], targets: NDArray[np.intp], prior: NDArray[np.float32], classes: Sequence[str]
) -> float:
    """Find how far to move the logits towards the class frequencies, for the best of macro-F1 and mean class recall.

    The two pull in opposite directions: macro-F1 towards the frequent classes, of which a small share mistaken for a
    rare one already costs it its precision; recall towards the rare ones.

    Training draws rare classes more often than they are, which moves the logits the other way (Menon et al.,
    "Long-tail learning via logit adjustment", ICLR 2021). One number is fitted, not one a class: the rarest classes
    have too few maps for that.

    Args:
        logits: Of maps not trained on, [n, classes].
        targets: Their class numbers, [n].
        prior: What `log_prior` returns for the training maps, [classes].
        classes: The class names.

    Returns:
        How much of the prior to add to the logits.
    """
    steps = np.linspace(-0.5, 1.0, 31)
    found = [measure(softmax(logits + np.float32(step) * prior), targets, classes) for step in steps]
    scores = [figures["macro_f1"] + figures["mean_class_recall"] for figures in found]
    # The mean over neighbours, because single maps of rare classes make the curve jagged.
    smooth = np.convolve(np.pad(scores, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    return float(steps[int(smooth.argmax())])


def fit_pattern_thresholds(probabilities: NDArray[np.float32], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Find for each pattern the probability from which it is named, for the best F1 of that pattern.

    Args:
        probabilities: Of each pattern, on maps not trained on, [n, classes].
        shown: Which of the patterns each map shows, [n, classes].

    Returns:
        The thresholds, [classes]; 0.5 for a pattern that no map shows.
    """
    steps = np.linspace(0.05, 0.95, 37)
    named = probabilities[None] >= steps[:, None, None]
    hits = (named & shown).sum(axis=1)
    f1 = 2 * hits / np.maximum(1, named.sum(axis=1) + shown.sum(axis=0))
    # The mean over neighbours, as in `fit_prior`.
    smooth = np.stack([np.convolve(np.pad(one, 2, mode="edge"), np.ones(5) / 5, mode="valid") for one in f1.T])
    return np.where(shown.any(axis=0), steps[smooth.argmax(axis=1)], 0.5)


def fit_thresholds(
    probabilities: NDArray[np.float32], targets: NDArray[np.intp], classes: Sequence[str], error_rate: float
) -> dict[str, float]:
    """Find for each class the probability below which a person should look.

    Split conformal: on held-out maps, the lowest threshold at which of the accepted predictions of the
    class no more than `error_rate` are wrong, with one more wrong one assumed for the map to come. A class without
    enough maps to show that gets 1: all its predictions go to review.

    Returns:
        A threshold in 0..1 for each class name.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    thresholds: dict[str, float] = {}
    for number, name in enumerate(classes):
        rows = np.flatnonzero(predicted == number)
        rows = rows[np.argsort(-confidence[rows], kind="stable")]
        wrong = np.cumsum(targets[rows] != number)
        good = np.flatnonzero((wrong + 1) / (np.arange(len(rows)) + 2) <= error_rate)
        thresholds[name] = float(confidence[rows[good[-1]]]) if len(good) else 1.0
    return thresholds
