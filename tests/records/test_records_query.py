"""Records are read as one per wafer: predictions side by side, the current one, and all reviews."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fabwafer.records import Filter, Records, Review, RolloutChangedError, UnknownWaferError
from tests.support.records import CAPTURED, predicted, shot, the_record


def current_model(records: Records) -> tuple[str, str] | None:
    current = the_record(records).current
    return None if current is None else (current.source, current.model)


def test_the_devices_prediction_and_the_clusters_stand_side_by_side(records: Records) -> None:
    records.store_shots([shot()])
    records.store_predictions(
        [predicted("none"), predicted("Loc", source="device", model="edge", timestamp=CAPTURED + 80)]
    )

    record = the_record(records)
    assert {(one.source, one.prediction) for one in record.predictions} == {("cluster", "none"), ("device", "Loc")}
    assert record.timestamp == CAPTURED
    assert current_model(records) == ("cluster", "v1")


def test_the_devices_prediction_is_current_while_there_is_no_other(records: Records) -> None:
    records.store_predictions(
        [predicted(source="device", model="edge"), predicted(model="v2", shadow=True, received=5)]
    )

    assert current_model(records) == ("device", "edge")


def test_an_image_alone_has_no_current_prediction(records: Records) -> None:
    records.store_shots([shot()])

    assert current_model(records) is None


def test_the_newest_of_the_cluster_is_current(records: Records) -> None:
    records.store_predictions(
        [predicted(model="v2", received=2, timestamp=1), predicted(model="v1", received=1, timestamp=9)]
    )

    assert current_model(records) == ("cluster", "v2")


def test_a_promotion_changes_no_current_prediction(records: Records) -> None:
    records.store_predictions([predicted(model="v1", received=1), predicted(model="v2", received=2)])
    records.set_rollout("v1", author="kim")

    assert current_model(records) == ("cluster", "v2")


def test_the_prediction_of_an_earlier_champion_stays_current(records: Records) -> None:
    records.store_predictions([predicted(model="v1"), predicted(source="device", model="edge", received=5)])
    records.set_rollout("v2", author="kim")

    assert current_model(records) == ("cluster", "v1")


def test_the_last_rollout_that_was_set_holds(records: Records) -> None:
    assert records.rollout() is None
    records.set_rollout("v1", author="kim", at=1)
    records.set_rollout("v1", candidate="v2", share=0.1, author="lee", at=2)

    rollout = records.rollout()
    assert rollout is not None
    assert (rollout.champion, rollout.candidate, rollout.share) == ("v1", "v2", 0.1)
    assert (rollout.author, rollout.time) == ("lee", 2)
    with pytest.raises(ValueError, match="0 to 1"):
        records.set_rollout("v1", candidate="v2", share=10, author="lee")


def test_of_two_who_set_a_rollout_at_once_the_second_is_refused(records: Records) -> None:
    records.set_rollout("v1", author="kim", after=0)
    seen = records.rollout()
    assert seen is not None
    with ThreadPoolExecutor() as people:
        attempts = [
            people.submit(records.set_rollout, f"v{one}", author="lee", after=seen.number) for one in range(2, 10)
        ]
        errors = [one.exception() for one in attempts]
    assert errors.count(None) == 1
    assert {type(error) for error in errors} == {type(None), RolloutChangedError}
    assert len(records.rollouts()) == 2
    with pytest.raises(RolloutChangedError, match=r"lee has just set another rollout \(champion v"):
        records.set_rollout("v1", author="kim", after=0)


def test_a_wafer_has_all_its_reviews_and_the_last_one_counts(records: Records) -> None:
    records.store_shots([shot()])
    assert (the_record(records).reviews, the_record(records).review) == ((), None)
    records.add_review("fab1", "cam1", "img1", label="Loc", reviewer="kim", at=20)
    records.add_review("fab1", "cam1", "img1", label="none", reviewer="lee", note="a smudge", at=10)

    record = the_record(records)
    assert record.reviews == (Review("Loc", "kim", 20, None), Review("none", "lee", 10, "a smudge"))
    assert record.review == record.reviews[-1]


def test_only_a_wafer_that_was_received_can_be_reviewed(records: Records) -> None:
    with pytest.raises(UnknownWaferError, match="img1"):
        records.add_review("fab1", "cam1", "img1", label="Loc", reviewer="kim")


def test_every_record_that_matches_is_yielded_once_in_a_stable_order(records: Records) -> None:
    names = [f"{number:04}" for number in range(1201)]  # more than two pages
    records.store_shots([shot(imgid=name, camera=f"cam{int(name) % 2}") for name in reversed(names)])

    assert [record.imgid for record in records.wafers(Filter(camera="cam0"))] == names[::2]
    assert [record.imgid for record in records.wafers()] == names[::2] + names[1::2]
    assert records.count() == 1201
    assert records.count(Filter(camera="cam1")) == 600


def test_the_newest_come_first_when_asked_for(records: Records) -> None:
    records.store_shots([shot(imgid=f"i{number}", received=number // 2) for number in range(1201)])
    records.store_predictions([predicted(imgid="i0", received=5000)])

    moments = [record.received for record in records.wafers(newest_first=True)]
    assert len(moments) == 1201
    assert moments == sorted(moments, reverse=True)
    assert next(records.wafers(newest_first=True)).imgid == "i0"


def test_records_are_found_by_name_and_by_context(records: Records) -> None:
    records.store_shots([shot(imgid="a", lot="L1"), shot(imgid="b", lot="L2", tool="T1"), shot(imgid="a", fab="fab2")])
    records.store_predictions([predicted(imgid="c", lot="L1")])

    def found(**wanted: Any) -> list[tuple[str, str]]:
        return [(record.fab, record.imgid) for record in records.wafers(Filter(**wanted))]

    def found_by(**context: Any) -> list[str]:
        return [record.imgid for record in records.wafers(Filter(**context))]

    assert found(fab="fab2") == [("fab2", "a")]
    assert found(imgid="a") == [("fab1", "a"), ("fab2", "a")]
    assert found(fab="fab3") == []
    assert found_by(lot="L1") == ["a", "c"]
    assert found_by(lot="L2", tool="T1") == ["b"]
    assert found_by(lot="L1", tool="T1") == []


def test_the_counts_are_those_of_the_newest_that_counted(records: Records) -> None:
    counts = {"rows": 30, "columns": 28, "passed": 600, "failed": 40, "regions": 3, "largest": 31}
    records.store_predictions(
        [
            predicted(model="v1", received=1, map={**counts, "failed": 1}),
            predicted(model="v2", received=2, map=counts),
            predicted(model="v3", received=3),
        ]
    )

    counted = the_record(records).map
    assert counted is not None
    assert counted.model_dump() == counts
