"""A candidate's predictions are read beside the champion's for the same image, and beside the last review."""

from fabwafer.records import Compared, Records
from tests.support.records import CAPTURED, WHO, predicted


def test_each_image_that_both_answered_is_compared_once(records: Records) -> None:
    records.store_predictions(
        [
            predicted("Loc"),
            predicted("Scratch", model="v2", shadow=True),
            predicted("none", imgid="img2"),
            predicted("none", imgid="img2", model="v2", shadow=True),
            predicted("Donut", imgid="only-the-champion"),
            predicted("Donut", imgid="only-the-candidate", model="v2", shadow=True),
            predicted("Donut", imgid="of-another-trial", model="v3", shadow=True),
            predicted("Center", imgid="only-the-device", source="device", model="edge"),
            predicted("Center", imgid="only-the-device", model="v2", shadow=True),
        ]
    )
    assert sorted(records.compared("v2"), key=lambda one: one.champion) == [
        Compared("Loc", "Scratch", None),
        Compared("none", "none", None),
    ]
    assert records.compared("v4") == []


def test_another_shot_of_a_wafer_is_another_image(records: Records) -> None:
    later = CAPTURED + 60_000
    records.store_predictions([predicted("Loc"), predicted("none", timestamp=later, received=2)])
    records.store_predictions([predicted("Loc", model="v2", shadow=True, timestamp=later, received=2)])
    assert records.compared("v2") == [Compared("none", "Loc", None)]


def test_of_two_champions_the_one_that_answered_last_counts(records: Records) -> None:
    records.store_predictions([predicted("Donut", model="v1", received=2), predicted("Loc", model="v0", received=1)])
    records.store_predictions([predicted("Donut", model="v2", shadow=True, received=3)])
    assert records.compared("v2") == [Compared("Donut", "Donut", None)]


def test_the_last_review_stands_beside_them(records: Records) -> None:
    records.store_predictions([predicted("Loc"), predicted("Scratch", model="v2", shadow=True)])
    for label in ("Donut", "Scratch"):
        records.add_review(*(WHO[name] for name in ("fab", "camera", "imgid")), label=label, reviewer="kim")
    assert records.compared("v2") == [Compared("Loc", "Scratch", "Scratch")]


def test_a_candidate_that_was_promoted_and_answers_again_is_no_longer_compared(records: Records) -> None:
    records.store_predictions([predicted("Loc"), predicted("Scratch", model="v2", shadow=True)])
    records.store_predictions([predicted("Scratch", model="v2")])
    assert records.compared("v2") == []
