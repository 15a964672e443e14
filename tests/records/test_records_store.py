"""What is received is stored once, in the order of receipt, whatever came twice or late."""

from typing import Any

import pytest

from fabwafer.messages.bodies import read_device_prediction, read_image
from fabwafer.messages.topics import Topic
from fabwafer.records import Filter, ReceivedPrediction, Records, Shot
from tests.support.records import CAPTURED, predicted, shot, the_record

COUNTS = {"rows": 30, "columns": 28, "passed": 600, "failed": 40, "regions": 3, "largest": 31}


def test_a_shot_received_twice_is_stored_once(records: Records) -> None:
    assert records.store_shots([shot()]) == 1
    before = the_record(records)

    assert records.store_shots([shot(), shot()]) == 0
    assert the_record(records) == before


def test_a_prediction_received_twice_is_stored_once(records: Records) -> None:
    assert len(records.store_predictions([predicted()]).new) == 1
    before = the_record(records)

    assert len(records.store_predictions([predicted(), predicted()]).new) == 0
    assert the_record(records) == before


def test_storing_returns_which_predictions_were_new(records: Records) -> None:
    records.store_predictions([predicted()])
    fresh = predicted("Donut", imgid="img2")

    assert records.store_predictions(
        [predicted(sequence=2), fresh, predicted("Donut", imgid="img2", sequence=2)]
    ).new == [fresh]


def test_a_batch_may_hold_the_same_key_several_times(records: Records) -> None:
    assert records.store_shots([shot(sequence=2), shot(sequence=1), shot(sequence=3)]) == 1
    assert len(records.store_predictions([predicted(sequence=2), predicted(sequence=1)]).new) == 1

    record = the_record(records)
    assert [one.sequence for one in record.shots] == [1]
    assert [one.sequence for one in record.predictions] == [1]


def test_nothing_to_store_is_no_error(records: Records) -> None:
    assert records.store_shots([]) == 0
    assert len(records.store_predictions([]).new) == 0
    assert list(records.wafers()) == []


def test_what_a_device_sends_again_counts_from_its_first_receipt(records: Records) -> None:
    records.store_shots([shot(b"first", received=1, sequence=1, timestamp=CAPTURED)])
    records.store_shots([shot(b"second", received=2, sequence=2, timestamp=CAPTURED + 5)])
    records.store_shots([shot(b"first", received=9, sequence=9, timestamp=CAPTURED)])

    assert len(the_record(records).shots) == 2
    assert records.image("fab1", "cam1", "img1") == b"second"


def test_another_file_under_the_same_name_is_a_later_shot(records: Records) -> None:
    records.store_shots([shot(b"first", sequence=1)])
    assert records.store_shots([shot(b"second", sequence=2)]) == 1

    assert records.image("fab1", "cam1", "img1") == b"second"


def test_order_of_receipt_beats_the_devices_clock(records: Records) -> None:
    records.store_shots([shot(b"late", received=20, timestamp=CAPTURED - 86_400_000)])
    records.store_shots([shot(b"early", received=10, timestamp=CAPTURED)])

    assert records.image("fab1", "cam1", "img1") == b"late"
    assert the_record(records).timestamp == CAPTURED - 86_400_000


def test_the_sequence_decides_among_what_was_received_in_the_same_millisecond(records: Records) -> None:
    records.store_shots([shot(b"later", received=7, sequence=12), shot(b"earlier", received=7, sequence=11)])

    assert records.image("fab1", "cam1", "img1") == b"later"


def test_a_prediction_may_arrive_before_its_image(records: Records) -> None:
    records.store_predictions([predicted(timestamp=CAPTURED + 40, received=5)])
    assert the_record(records).timestamp == CAPTURED + 40
    assert records.image("fab1", "cam1", "img1") is None

    records.store_shots([shot(b"the file", received=3)])
    record = the_record(records)
    assert record.timestamp == CAPTURED
    assert record.received == 5
    assert len(record.predictions) == 1
    assert records.image("fab1", "cam1", "img1") == b"the file"


def test_the_image_is_stored_as_received(records: Records) -> None:
    every_byte = bytes(range(256)) * 9000
    records.store_shots([shot(every_byte)])

    assert records.image("fab1", "cam1", "img1") == every_byte


def test_all_of_a_prediction_is_stored(records: Records) -> None:
    records.store_predictions(
        [
            predicted(
                "Scratch",
                0.75,
                wafer=True,
                review=True,
                review_reason="colours",
                review_detail="got blue and yellow",
                probabilities={"Scratch": 0.75, "none": 0.25},
                map=COUNTS,
                embedding=[0.5, -1.25, 1e9],
            )
        ]
    )

    [stored] = the_record(records).predictions
    assert (stored.source, stored.model, stored.timestamp) == ("cluster", "v1", CAPTURED)
    assert (stored.prediction, stored.probability) == ("Scratch", 0.75)
    assert (stored.wafer, stored.review, stored.shadow) == (True, True, False)
    assert (stored.review_reason, stored.review_detail) == ("colours", "got blue and yellow")
    assert stored.probabilities == {"Scratch": 0.75, "none": 0.25}
    assert stored.map is not None
    assert stored.map.model_dump() == COUNTS
    assert stored.embedding == (0.5, -1.25, 65504.0)  # the largest float16


def test_unknown_fields_are_stored_with_images_and_predictions(records: Records) -> None:
    more: dict[str, Any] = {"operator": "n.n.", "bench": {"lamp": [1, 2.5, None]}}
    records.store_shots([shot(**more)])
    records.store_predictions([predicted(**more)])

    record = the_record(records)
    assert record.shots[0].extra == more
    assert record.predictions[0].extra == more


def test_the_context_of_a_wafer_is_the_newest_shots_before_any_predictions(records: Records) -> None:
    records.store_predictions([predicted(lot="of prediction", tool="T9", received=9)])
    records.store_shots([shot(b"2", lot="newer", received=2), shot(b"1", lot="older", slot="4", received=1)])

    assert the_record(records).context == {"lot": "newer", "slot": "4", "tool": "T9"}


def test_what_a_device_sends_of_the_model_servers_fields_is_only_extra(records: Records) -> None:
    claims: dict[str, Any] = {"wafer": True, "map": {**COUNTS, "rows": 10**30}, "embedding": [1.0, 2.0]}
    records.store_predictions([predicted(source="device", model="edge", **claims)])

    [stored] = the_record(records).predictions
    assert (stored.wafer, stored.map, stored.embedding) == (None, None, None)
    assert set(stored.extra) == {"map", "embedding"}


@pytest.mark.parametrize(
    "more",
    [
        b'"lot": "a\\u0000b"',
        b'"model": "a\\u0000b"',
        b'"note": "a\\u0000b"',
        b'"note": 123456789012345678901234567890',
    ],
)
def test_whatever_passes_for_a_message_can_be_stored(records: Records, more: bytes) -> None:
    body = b'{"imgid": "img1", "timestamp": 1700000000, "fab": "fab1", "camera": "cam1", '
    prediction = read_device_prediction(
        Topic("fab1", "cam1", "prediction", "img1"), body + b'"prediction": "Loc", "probability": 1, ' + more + b"}"
    )
    image = read_image(Topic("fab1", "cam1", "img", "img1"), body + b'"bytes": "AAAA", ' + more + b"}")

    assert len(records.store_predictions([ReceivedPrediction(prediction, 1, 1)]).new) == 1
    assert records.store_shots([Shot(image.metadata, image.data, 1, 1)]) == 1
    assert len(the_record(records).predictions) == 1


def test_old_images_are_deleted_but_for_reviewed_wafers(records: Records) -> None:
    records.store_shots([shot(imgid=name, received=moment) for name, moment in (("a", 10), ("b", 10), ("c", 30))])
    records.add_review("fab1", "cam1", "b", label="Loc", reviewer="kim", at=40)

    assert records.forget_images(received_before=30) == 1

    images = {name: records.image("fab1", "cam1", name) for name in "abc"}
    assert images == {"a": None, "b": b"a file", "c": b"a file"}
    assert [record.shots[0].has_file for record in records.wafers()] == [False, True, True]
    assert records.forget_images(received_before=30) == 0


def test_a_deleted_image_that_comes_again_stays_deleted(records: Records) -> None:
    records.store_shots([shot(received=10)])
    records.forget_images(received_before=11)

    assert records.store_shots([shot(received=12)]) == 0
    assert records.image("fab1", "cam1", "img1") is None


def test_images_are_deleted_a_step_at_a_time(records: Records) -> None:
    records.store_shots([shot(imgid=f"i{number}") for number in range(25)])

    assert [records.forget_images(received_before=2, at_most=10) for _ in range(4)] == [10, 10, 5, 0]


def test_deleted_wafers_leave_nothing_and_others_stay(records: Records) -> None:
    for camera in ("gone", "stays"):
        records.store_shots([shot(camera=camera), shot(b"another file", camera=camera, sequence=2)])
        records.store_predictions(
            [predicted(camera=camera, embedding=[1.0, 2.0]), predicted(camera=camera, model="v2")]
        )
        records.add_review("fab1", camera, "img1", label="Loc", reviewer="somebody")
    before = records.wafer("fab1", "stays", "img1")

    assert records.delete_wafers(Filter(fab="fab1", camera="gone")) == 1
    assert records.delete_wafers(Filter(fab="fab1", camera="gone")) == 0
    assert [row.camera for row in records.rows()] == ["stays"]
    assert records.wafer("fab1", "stays", "img1") == before
    assert {pending.alert.camera for pending in records.pending_alerts()} == {"stays"}
    assert records.store_shots([shot(camera="gone")]) == 1, "it may come again"
