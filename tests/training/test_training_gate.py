"""The gate lets a candidate through only when it is no worse than the champion, and names what is worse."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fabwafer_training.gate import Verdict, judge
from fabwafer_training.limits import Limits

CLASSES = ["Center", "Scratch", "none"]
TARGETS = np.repeat(np.arange(3), 200)


def answers(recalls: dict[str, float], mistaken_for: str = "none") -> NDArray[np.float32]:
    """Probabilities of a model with these recalls; the first maps of a class are those it gets wrong."""
    guessed = TARGETS.copy()
    for number, name in enumerate(CLASSES):
        wrong = round(200 * (1 - recalls.get(name, 1.0)))
        guessed[200 * number : 200 * number + wrong] = CLASSES.index(mistaken_for)
    return np.eye(3, dtype=np.float32)[guessed]


def verdict(champion: NDArray[np.float32], candidate: NDArray[np.float32], limits: Limits | None = None) -> Verdict:
    return judge(champion, candidate, TARGETS, classes=CLASSES, limits=limits or Limits())


def test_a_candidate_that_is_the_same_passes() -> None:
    same = answers({"Scratch": 0.99, "Center": 0.99})
    found = verdict(same, same)
    assert found.decided
    assert found.passed
    assert found.reasons == []
    assert found.macro_f1_difference == (0, 0, 0)


def test_a_better_candidate_passes() -> None:
    found = verdict(answers({"Scratch": 0.90}, "Center"), answers({"Scratch": 0.99}, "Center"))
    assert found.passed
    assert found.macro_f1_difference is not None
    assert found.macro_f1_difference[0] > 0


def test_a_class_that_was_forgotten_is_refused_by_name_and_figures() -> None:
    found = verdict(answers({}), answers({"Scratch": 0.80}, "Center"))
    assert found.decided
    assert not found.passed
    assert "Scratch: recall fell from 1.000 to 0.800, allowed is 0.030" in found.reasons
    assert "Scratch: recall 0.800 is below 0.850 and below the champion's, 1.000" in found.reasons
    assert any(reason.startswith("macro-F1 0.9") for reason in found.reasons)


def test_defects_called_none_are_refused() -> None:
    found = verdict(answers({"Scratch": 0.97, "Center": 0.97}), answers({"Scratch": 0.97, "Center": 0.97}))
    assert found.reasons == ["3.00% of defects are called none, allowed is 2.00%"]


def test_defects_called_by_a_fabs_own_name_of_good_wafers_are_refused() -> None:
    champion = answers({"Scratch": 0.97, "Center": 0.97})
    found = judge(champion, champion, TARGETS, classes=["edge", "streak", "ok"], limits=Limits(), good="ok")
    assert found.reasons == ["3.00% of defects are called ok, allowed is 2.00%"]


@pytest.mark.parametrize(("recall", "passes"), [(0.80, True), (0.84, True), (0.795, False)])
def test_a_class_that_the_champion_has_below_the_floor_may_rise_and_stay_but_not_fall(
    recall: float, passes: bool
) -> None:
    found = verdict(
        answers({"Scratch": 0.80}, "Center"), answers({"Scratch": recall}, "Center"), Limits(macro_f1_fall=0.01)
    )
    assert found.reasons == ([] if passes else ["Scratch: recall 0.795 is below 0.850 and below the champion's, 0.800"])


def test_limits_are_settings() -> None:
    champion, candidate = (answers({"Scratch": recall, "Center": 0.97}) for recall in (0.97, 0.965))
    lenient = Limits(missed_as_none=0.05, macro_f1_fall=0.01)
    assert verdict(champion, candidate, lenient).passed
    assert not verdict(champion, candidate, replace(lenient, recall_floor=0.98)).passed
    assert not verdict(champion, candidate, replace(lenient, recall_fall=0.001)).passed


def few(counts: tuple[int, int, int]) -> NDArray[np.intp]:
    """The rows of so many maps of each class, the first of each."""
    return np.concatenate([200 * number + np.arange(count) for number, count in enumerate(counts)])


def test_a_small_gold_set_leaves_it_to_a_person() -> None:
    rows = few((100, 29, 100))
    right = answers({})[rows]
    found = judge(right, right, TARGETS[rows], classes=CLASSES, limits=Limits())
    assert not found.decided
    assert not found.passed
    assert found.reasons == ["the gold set is too small to decide: expected 30 maps a class, found Scratch 29"]


def test_in_a_small_gold_set_every_class_that_has_enough_maps_is_checked() -> None:
    rows = few((100, 29, 100))
    worse = answers({"Center": 0.97, "Scratch": 0.97})[rows]  # the first six maps of each are wrong
    found = judge(answers({})[rows], worse, TARGETS[rows], classes=CLASSES, limits=Limits())
    assert (found.decided, found.passed) == (True, False)
    assert found.reasons[0] == "Center: recall fell from 1.000 to 0.940, allowed is 0.030"
    assert not any(reason.startswith("Scratch") for reason in found.reasons)
    assert found.reasons[-1] == "9.30% of defects are called none, allowed is 2.00%"


@pytest.mark.parametrize("champion", [{}, {"Center": 0.0, "Scratch": 0.0}])
def test_an_absolute_floor_holds_however_small_the_gold_set_and_however_bad_the_champion(
    champion: dict[str, float],
) -> None:
    rows = few((5, 5, 5))
    bad = answers({"Center": 0.0, "Scratch": 0.0})[rows]
    found = judge(answers(champion)[rows], bad, TARGETS[rows], classes=CLASSES, limits=Limits())
    assert (found.decided, found.passed) == (True, False)
    assert found.reasons == ["macro-F1 0.1667 on all 15 gold maps is below the absolute floor, 0.5000"]


@pytest.mark.parametrize("maps", [5, 200])
def test_a_candidate_without_finite_answers_is_refused(maps: int) -> None:
    rows = few((maps, maps, maps))
    silent = answers({})[rows]
    silent[0] = np.nan
    found = judge(answers({})[rows], silent, TARGETS[rows], classes=CLASSES, limits=Limits())
    assert (found.decided, found.passed, found.macro_f1_difference) == (True, False, None)
    assert found.reasons == [f"expected finite probabilities for the {3 * maps} gold maps, 1 have others"]


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_holds_the_difference_and_repeats(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = (np.eye(3)[np.where(random.random(600) < 0.1, random.integers(0, 3, 600), TARGETS)] for _ in "ab")
    found = verdict(first.astype(np.float32), second.astype(np.float32))
    assert found.macro_f1_difference is not None
    difference, low, high = found.macro_f1_difference
    assert low < difference < high
    assert found == verdict(first.astype(np.float32), second.astype(np.float32))
