"""The gate: whether a candidate may take the champion's place, decided on a gold set neither was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabwafer.defects import NONE
from fabwafer_training.limits import Limits
from fabwafer_training.metrics import measure

_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision.

    Attributes:
        decided: False when the gold set is too small and all that can be checked is met; a person decides then.
        passed: Whether the candidate may be promoted by rule; never when not decided.
        reasons: A sentence with the class and the figures for each limit that was not met, or for what is missing.
        macro_f1_difference: Candidate less champion: the difference, and the lower and upper end of its 95 % interval;
            None where the candidate has no finite answers.
    """

    decided: bool
    passed: bool
    reasons: list[str]
    macro_f1_difference: tuple[float, float, float] | None
    limits: Limits


def judge(
    champion: NDArray[np.float32],
    candidate: NDArray[np.float32],
    targets: NDArray[np.intp],
    *,
    classes: Sequence[str],
    limits: Limits,
    good: str = NONE,
    seed: int = 0,
) -> Verdict:
    """Compare two models on the same gold maps.

    Each class that has enough gold maps is checked, however few the others have.

    Args:
        champion: Its probabilities, [n, classes].
        candidate: Its probabilities, [n, classes].
        targets: The numbers of the true classes, [n].
        classes: The class names.
        limits: What to hold the candidate to.
        good: The class of wafers without a defect.
        seed: Of the bootstrap's draws.
    """
    if not (finite := np.isfinite(candidate).all(axis=1)).all():
        reason = f"expected finite probabilities for the {len(targets)} gold maps, {(~finite).sum()} have others"
        return Verdict(True, False, [reason], None, limits)
    old, new = champion.argmax(axis=1), candidate.argmax(axis=1)
    before, after = (measure(one, targets, classes, good=good) for one in (champion, candidate))
    low, high = _difference_interval(old, new, targets, len(classes), seed)
    difference = after["macro_f1"] - before["macro_f1"], low, high
    support = {name: figures["support"] for name, figures in after["per_class"].items()}
    small = {name: count for name, count in support.items() if count < limits.maps_per_class}
    reasons = []
    if after["macro_f1"] < limits.macro_f1_floor:
        reasons.append(
            f"macro-F1 {after['macro_f1']:.4f} on all {len(targets)} gold maps is below the absolute floor, "
            f"{limits.macro_f1_floor:.4f}"
        )
    if not small and low < -limits.macro_f1_fall:
        reasons.append(
            f"macro-F1 {after['macro_f1']:.4f} against the champion's {before['macro_f1']:.4f}: the 95 % lower bound "
            f"of the difference is {low:+.4f}, allowed is {-limits.macro_f1_fall:+.4f}"
        )
    for name in (name for name in classes if name not in small):
        was, now = before["per_class"][name]["recall"], after["per_class"][name]["recall"]
        if was - now > limits.recall_fall:
            reasons.append(f"{name}: recall fell from {was:.3f} to {now:.3f}, allowed is {limits.recall_fall:.3f}")
        if now < min(limits.recall_floor, was):
            reasons.append(
                f"{name}: recall {now:.3f} is below {limits.recall_floor:.3f} and below the champion's, {was:.3f}"
            )
    missed, defects = after["missed_as_none"] or 0.0, len(targets) - support.get(good, 0)
    if defects >= limits.maps_per_class and missed > limits.missed_as_none:
        reasons.append(f"{missed:.2%} of defects are called {good}, allowed is {limits.missed_as_none:.2%}")
    if small and not reasons:
        listed = ", ".join(f"{name} {count}" for name, count in small.items())
        reason = f"the gold set is too small to decide: expected {limits.maps_per_class} maps a class, found {listed}"
        return Verdict(False, False, [reason], difference, limits)
    return Verdict(True, not reasons, reasons, difference, limits)


def _difference_interval(
    old: NDArray[np.intp], new: NDArray[np.intp], targets: NDArray[np.intp], classes: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of the difference in macro-F1: both models on the same maps drawn with replacement.

    Drawn class by class, so that no draw loses a rare class.
    """
    random = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(targets == number) for number in range(classes)]
    differences = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        rows = np.concatenate([random.choice(rows, len(rows)) for rows in rows_of if len(rows)])
        differences[draw] = _macro_f1(new[rows], targets[rows], classes) - _macro_f1(old[rows], targets[rows], classes)
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _macro_f1(guessed: NDArray[np.intp], targets: NDArray[np.intp], classes: int) -> float:
    right = np.bincount(targets[guessed == targets], minlength=classes)
    support, called = np.bincount(targets, minlength=classes), np.bincount(guessed, minlength=classes)
    occurs = support > 0
    return float((2 * right[occurs] / (support[occurs] + called[occurs])).mean())
