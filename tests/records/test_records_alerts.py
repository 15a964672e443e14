"""A prediction that names a defect with enough probability raises one alert, decided when it is stored."""

import math

import pytest

from fabwafer.defects import NOT_A_WAFER
from fabwafer.messages.bodies import read_device_prediction
from fabwafer.messages.topics import SMOKE_TEST_FAB, Topic
from fabwafer.records import ReceivedPrediction, Records, Threshold, ThresholdRefusedError
from tests.support.records import CAPTURED, predicted, the_record


def test_a_defect_alerts_once_however_often_it_is_received(records: Records) -> None:
    assert records.store_predictions([predicted("Loc"), predicted("Loc", sequence=2)]).alerts == [("fab1", "Loc")]
    assert records.store_predictions([predicted("Loc", sequence=3)]).alerts == []

    assert len(records.pending_alerts()) == 1
    assert the_record(records).predictions[0].alert


@pytest.mark.parametrize(
    "quiet",
    [
        predicted("none"),
        predicted("None"),
        predicted("ok", is_defect=False),
        predicted("Loc", 0.49),
        predicted(NOT_A_WAFER, wafer=False),
        predicted("Loc", wafer=False),
        predicted("Loc", shadow=True),
        predicted("Loc", fab=SMOKE_TEST_FAB),
        predicted("Loc", review=True, review_reason="colours"),
        predicted("Loc", review=True, review_reason="unlike"),
    ],
    ids=[
        "no defect",
        "in any case",
        "a model's own class of good wafers",
        "too little probability",
        "not a wafer",
        "not a wafer, whatever it resembles",
        "on trial",
        "of a smoke test",
        "colours that leave a doubt",
        "a map unlike those of the training",
    ],
)
def test_what_is_no_alert(records: Records, quiet: ReceivedPrediction) -> None:
    assert records.store_predictions([quiet]).alerts == []
    assert records.pending_alerts() == []
    assert not the_record(records).predictions[0].alert


def test_a_class_of_a_models_own_that_is_a_defect_alerts(records: Records) -> None:
    stored = records.store_predictions([predicted("streak", is_defect=True), predicted("odd", imgid="img2")])
    assert stored.alerts == [("fab1", "streak"), ("fab1", "odd")]
    assert [pending.alert.is_defect for pending in records.pending_alerts()] == [True, True]


def test_an_unsure_prediction_alerts_all_the_same(records: Records) -> None:
    stored = records.store_predictions([predicted("Loc", 0.6, review=True, review_reason="unsure")])
    assert stored.alerts == [("fab1", "Loc")]


def test_a_devices_fifty_percent_is_enough(records: Records) -> None:
    topic = Topic("fab1", "cam1", "prediction", "img1")
    body = b'{"imgid":"img1","timestamp":1,"fab":"fab1","camera":"cam1","prediction":"loc","probability":"50.0"}'
    sent = ReceivedPrediction(read_device_prediction(topic, body), 1, 1)

    assert records.store_predictions([sent]).alerts == [("fab1", "Loc")]


def test_the_device_and_the_cluster_alert_each_for_itself(records: Records) -> None:
    stored = records.store_predictions(
        [predicted("Loc", source="device", model="v1"), predicted("Loc", source="cluster")]
    )

    assert len(stored.new) == 2
    assert len({alert.id for alert in records.pending_alerts()}) == 2


def test_all_alerts_that_wait_are_counted_however_many_are_read_at_once(records: Records) -> None:
    records.store_predictions([predicted(imgid=f"i{number}") for number in range(120)])
    assert (records.count_pending_alerts(), len(records.pending_alerts())) == (120, 100)

    records.mark_alert_sent([waiting.id for waiting in records.pending_alerts()])
    assert records.count_pending_alerts() == 20


def test_an_alert_is_the_prediction_with_its_cause(records: Records) -> None:
    counts = {"rows": 30, "columns": 28, "passed": 600, "failed": 40, "regions": 3, "largest": 31}
    prediction = predicted(
        "Scratch",
        0.8,
        is_defect=True,
        wafer=True,
        map=counts,
        probabilities={"Scratch": 0.8},
        lot="L7",
        operator="kim",
    )
    records.store_predictions([prediction])

    [pending] = records.pending_alerts()
    assert pending.attempts == 0
    alert = pending.alert
    assert alert.id == pending.id
    assert (alert.threshold, alert.cause, alert.url) == (0.5, "handling", None)
    assert alert.model_extra == {"operator": "kim"}
    carried = set(type(prediction.prediction).model_fields)
    assert alert.model_dump(include=carried) == prediction.prediction.model_dump(include=carried)


def test_an_alert_bears_its_own_id_and_threshold_whatever_the_device_sent(records: Records) -> None:
    records.store_predictions([predicted("Loc", source="device", id="mine", threshold="none", cause="weather", url=7)])

    [pending] = records.pending_alerts()
    assert pending.alert.id == pending.id != "mine"
    assert (pending.alert.threshold, pending.alert.cause) == (0.5, "particles at one place")


def test_the_alert_of_a_prediction_has_the_same_id_in_every_database(records: Records) -> None:
    records.store_predictions([predicted("Loc", fab="f", camera="c", imgid="i", model="v1", timestamp=5)])

    assert [alert.id for alert in records.pending_alerts()] == ["a614cd37-ce63-5ce7-a7a2-0ea3da779d3b"]


def test_alerts_wait_until_they_are_marked_as_sent(records: Records) -> None:
    records.store_predictions(
        [predicted(imgid=name, received=moment) for name, moment in (("b", 1), ("a", 2), ("c", 3))]
    )
    assert [waiting.alert.imgid for waiting in records.pending_alerts()] == ["b", "a", "c"]
    assert [waiting.alert.imgid for waiting in records.pending_alerts(limit=2)] == ["b", "a"]

    records.mark_alert_sent([records.pending_alerts()[0].id])
    assert [waiting.alert.imgid for waiting in records.pending_alerts()] == ["a", "c"]


def test_an_alert_that_fails_stays_pending_and_stops_no_other(records: Records) -> None:
    records.store_predictions([predicted(imgid=name, received=moment) for name, moment in (("a", 1), ("b", 2))])
    [first, _] = records.pending_alerts()

    records.mark_alert_failed([first.id], "HTTP 500\0")

    assert [(waiting.alert.imgid, waiting.attempts) for waiting in records.pending_alerts()] == [("b", 0), ("a", 1)]


def test_the_most_specific_threshold_wins(records: Records) -> None:
    steps: list[tuple[dict[str, str], float]] = [
        ({}, 0.1),
        ({"fab": "fab1"}, 0.2),
        ({"label": "Loc"}, 0.3),
        ({"fab": "fab1", "label": "Loc"}, 0.4),
        ({"fab": "fab1", "camera": "cam1"}, 0.5),
        ({"fab": "fab1", "camera": "cam1", "label": "Loc"}, 0.6),
    ]
    assert records.threshold("fab1", "cam1", "Loc") == 0.5
    for where, value in steps:
        records.set_threshold(value, **where)
        assert records.threshold("fab1", "cam1", "Loc") == value

    assert records.threshold("fab1", "cam1", "Donut") == 0.5
    assert records.threshold("fab1", "cam2", "Donut") == 0.2
    assert records.threshold("fab2", "cam1", "Loc") == 0.3
    assert records.threshold("fab2", "cam1", "Donut") == 0.1


def test_a_threshold_can_be_set_again(records: Records) -> None:
    records.set_threshold(0.7, label="Loc")
    records.set_threshold(0.8, label="Loc")

    assert records.threshold("fab1", "cam1", "Loc") == 0.8
    assert records.thresholds() == [Threshold(None, None, "Loc", 0.8)]


def test_all_thresholds_that_were_set_can_be_read(records: Records) -> None:
    assert records.thresholds() == []
    records.set_threshold(0.7, fab="fab1", camera="cam1", label="Loc")
    records.set_threshold(0.4)

    assert records.thresholds() == [Threshold(None, None, None, 0.4), Threshold("fab1", "cam1", "Loc", 0.7)]


def test_a_threshold_decides_from_then_on(records: Records) -> None:
    records.set_threshold(0.95, fab="fab1", label="Loc")
    assert records.store_predictions([predicted("Loc", 0.94), predicted("Donut", 0.6, imgid="img2")]).alerts == [
        ("fab1", "Donut")
    ]

    records.set_threshold(0.5, fab="fab1", label="Loc")
    assert records.store_predictions([predicted("Loc", 0.94, sequence=2)]).alerts == []


@pytest.mark.parametrize(("value", "camera"), [(1.5, None), (-0.1, None), (math.nan, None), (0.5, "cam1")])
def test_a_threshold_that_cannot_be_meant_is_refused(records: Records, value: float, camera: str | None) -> None:
    with pytest.raises(ThresholdRefusedError, match="expected"):
        records.set_threshold(value, camera=camera)


def test_a_candidates_answer_counts_once_it_serves(records: Records) -> None:
    records.store_predictions([predicted("Loc", model="v2", shadow=True)])
    assert the_record(records).current is None

    stored = records.store_predictions([predicted("Loc", model="v2", sequence=2)])

    assert (stored.new, stored.alerts) == ([], [("fab1", "Loc")])
    current = the_record(records).current
    assert current is not None
    assert (current.model, current.shadow, current.alert) == ("v2", False, True)
    assert records.store_predictions([predicted("Loc", model="v2", sequence=3)]).alerts == []


def test_an_alert_knows_when_the_wafer_was_captured(records: Records) -> None:
    records.store_predictions([predicted("Loc", received=CAPTURED + 900)])

    assert records.pending_alerts()[0].alert.timestamp == CAPTURED


def test_an_alert_has_its_predictions_time_stamp_though_it_is_of_1970(records: Records) -> None:
    # A device without a clock begins there; read as a device's, milliseconds of then would count as seconds.
    records.store_predictions([predicted("Loc", 0.9, timestamp=12_345_000)])
    (pending,) = records.pending_alerts()
    (prediction,) = the_record(records).predictions
    assert pending.alert.timestamp == prediction.timestamp
