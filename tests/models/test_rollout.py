"""The rollout: what is decided on champion and candidate, and what a program must not undo."""

from functools import partial
from pathlib import Path

import pytest

from fabwafer.models.rollout import (
    RolloutError,
    champion_folder,
    count_outcome,
    current,
    earlier_champions,
    promote,
    refusals,
    refuse,
    roll_back,
    start_first_trial,
    start_trial,
)
from fabwafer.models.store import FolderStore, StoreError
from fabwafer.records import Compared, Records, Rollout, RolloutChangedError
from tests.support.tiny_models import make


@pytest.mark.parametrize(
    ("champions", "earlier"),
    [
        ([], []),
        (["a"], []),
        (["a", "b"], ["a"]),
        (["a", "b", "b", "c"], ["b", "a"]),
        (["a", "b", "c", "b"], ["a"]),
        (["a", "b", "c", "b", "d"], ["b", "a"]),
        (["a", "b", "c", "b", "c"], ["b", "a"]),
        (["a", "b", "c", "d", "c", "b", "e"], ["b", "a"]),
        (["a", "b", "a", "c"], ["a"]),
    ],
)
def test_a_rollback_never_leads_to_a_version_that_was_left(champions: list[str], earlier: list[str]) -> None:
    rollouts = [Rollout(champion, None, 0.0, "kim", number) for number, champion in enumerate(champions)]
    assert earlier_champions(rollouts[::-1]) == earlier


def test_before_the_set_up_no_champion_is_known_and_one_can_be_promoted(records: Records, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    with pytest.raises(RolloutError, match="the records name no champion yet"):
        current(records)
    with pytest.raises(RolloutError, match="the versions there are: none"):
        promote(records, store, author="kim")
    make(store.work_folder("v1"), "v1")
    store.publish("v1")
    change = promote(records, store, "v1", author="kim")
    assert (change.before, change.after.champion, change.changed) == (None, "v1", True)
    assert not promote(records, store, "v1", author="kim").changed
    assert champion_folder(records, store, tmp_path).name == "v1"


def test_a_version_without_finite_answers_serves_nowhere_however_it_came_into_the_store(
    records: Records, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "store")
    for version, finite in (("v1", True), ("silent", False), ("v2", True)):
        make(tmp_path / "store" / "versions" / version, version, finite=finite)
    promote(records, store, "v1", author="kim")
    for change in (promote, partial(start_trial, share=0.1)):
        with pytest.raises(StoreError, match=r"silent .*expected finite logits .* the versions there are: silent, v1"):
            change(records, store, "silent", author="kim")
    records.set_rollout("silent", author="an earlier release")
    promote(records, store, "v2", author="kim")
    back = roll_back(records, store, author="kim")
    assert (back.after.champion, len(back.passed_over)) == ("v1", 1)
    assert "silent" in back.passed_over[0]


def test_a_version_on_which_people_decided_is_not_put_on_trial_again(records: Records) -> None:
    records.set_rollout("v1", author="kim")
    assert start_first_trial(records, "v2", author="retraining")
    records.set_rollout("v1", author="kim")  # ends the trial
    assert not start_first_trial(records, "v2", author="retraining")
    assert not start_first_trial(records, "v1", author="retraining")
    [ended, trial, _] = records.rollouts()
    assert (ended.champion, ended.candidate) == ("v1", None)
    assert (trial.champion, trial.candidate, trial.share) == ("v1", "v2", 0.1)


def test_a_promotion_at_the_moment_of_the_trial_is_not_undone(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.set_rollout("v1", author="kim")
    look = records.rollouts

    def look_just_before_a_promotion() -> list[Rollout]:
        seen = look()
        if len(seen) == 1:
            records.set_rollout("v2", author="kim")
        return seen

    monkeypatch.setattr(records, "rollouts", look_just_before_a_promotion)
    assert start_first_trial(records, "v3", author="retraining")
    assert [(one.champion, one.candidate) for one in look()] == [("v2", "v3"), ("v2", None), ("v1", None)]


def test_a_version_that_cannot_serve_is_recorded_and_the_one_before_it_is_wanted_again(records: Records) -> None:
    records.set_rollout("v1", author="kim")
    records.set_rollout("v2", candidate="v3", share=0.2, author="kim")
    refuse(records, current(records), "v2", "no node has room for it", champion="v1")
    refused = current(records)
    assert (refused.champion, refused.candidate, refused.share) == ("v1", "v3", 0.2)
    assert (refused.author, refused.refused, refused.reason) == ("fabwafer", "v2", "no node has room for it")
    refuse(records, refused, "v3", "its image cannot be pulled", champion="v1")
    assert (current(records).champion, current(records).candidate) == ("v1", None)
    assert refusals(records.rollouts()) == {"v2": "no node has room for it", "v3": "its image cannot be pulled"}
    records.set_rollout("v1", candidate="v2", share=0.1, author="kim")  # asks for it again
    assert refusals(records.rollouts()) == {"v3": "its image cannot be pulled"}
    assert earlier_champions(records.rollouts()) == []


def test_what_somebody_decides_meanwhile_is_not_undone_by_a_refusal(records: Records) -> None:
    records.set_rollout("v2", author="kim")
    before = current(records)
    records.set_rollout("v3", author="kim")
    with pytest.raises(RolloutChangedError):
        refuse(records, before, "v2", "its image cannot be pulled", champion="v1")
    assert current(records).champion == "v3"


def test_the_outcome_counts_where_the_two_differ_and_who_is_right() -> None:
    compared = [
        Compared("Loc", "Loc", "Loc"),
        Compared("Loc", "Scratch", None),
        Compared("none", "Donut", "Donut"),
        Compared("Loc", "Scratch", "Loc"),
    ]
    outcome = count_outcome("v2", compared)
    assert (outcome.candidate, outcome.images, outcome.agreed) == ("v2", 4, 1)
    assert outcome.differing == [("Loc", "Scratch", 2), ("none", "Donut", 1)]
    assert (outcome.reviewed, outcome.champion_right, outcome.candidate_right) == (3, 2, 2)
