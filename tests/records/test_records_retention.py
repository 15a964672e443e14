"""Wafers are deleted by age with all that is known of them; what a person reviewed stays."""

import pytest
from sqlalchemy import func, select

from fabwafer.records import Records
from fabwafer.records.engine import connect, reading
from fabwafer.records.tables import alerts, predictions, shots, wafers
from tests.support.records import predicted, shot

OLD, MOMENT, NEW = 10, 20, 30


def rows(database: str) -> dict[str, int]:
    """How many rows the tables have that are about wafers."""
    engine = connect(database)
    with reading(engine) as connection:
        found = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (wafers, shots, predictions, alerts)
        }
    engine.dispose()
    return found


def receive(records: Records, imgid: str, received: int) -> None:
    """Store an image with its prediction, which raises an alert, and send that."""
    records.store_shots([shot(imgid=imgid, received=received)])
    records.store_predictions([predicted(imgid=imgid, received=received, embedding=[1.0, 2.0])])
    records.mark_alert_sent([one.id for one in records.pending_alerts()])


def names(records: Records) -> list[str]:
    return [one.imgid for one in records.wafers()]


def test_old_wafers_are_deleted_with_their_images_predictions_and_alerts(records: Records, database: str) -> None:
    receive(records, "old", OLD)
    receive(records, "new", NEW)
    assert rows(database) == {"wafers": 2, "shots": 2, "predictions": 2, "alerts": 2}

    assert records.forget_wafers(received_before=MOMENT) == 1

    assert names(records) == ["new"]
    assert rows(database) == {"wafers": 1, "shots": 1, "predictions": 1, "alerts": 1}
    assert records.forget_wafers(received_before=MOMENT) == 0


def test_a_reviewed_wafer_stays_with_all_that_is_known_of_it(records: Records) -> None:
    receive(records, "reviewed", OLD)
    records.add_review("fab1", "cam1", "reviewed", label="Loc", reviewer="kim", at=OLD)

    assert records.forget_wafers(received_before=MOMENT) == 0

    assert records.image("fab1", "cam1", "reviewed") == b"a file"
    [wafer] = records.wafers()
    assert (len(wafer.shots), len(wafer.predictions), len(wafer.reviews)) == (1, 1, 1)


def test_a_wafer_of_which_something_was_received_lately_stays(records: Records) -> None:
    receive(records, "again", OLD)
    records.store_shots([shot(b"a later file", imgid="again", received=NEW, sequence=2)])

    assert records.forget_wafers(received_before=MOMENT) == 0
    assert names(records) == ["again"]


def test_a_wafer_whose_alert_is_not_sent_yet_stays_until_it_is(records: Records) -> None:
    records.store_predictions([predicted(received=OLD)])
    assert records.forget_wafers(received_before=MOMENT) == 0

    records.mark_alert_sent([one.id for one in records.pending_alerts()])
    assert records.forget_wafers(received_before=MOMENT) == 1


def test_wafers_are_deleted_a_step_at_a_time_the_oldest_first(records: Records) -> None:
    for number in range(5):
        receive(records, f"i{number}", number + 1)

    assert records.forget_wafers(received_before=MOMENT, at_most=3) == 3
    assert names(records) == ["i3", "i4"]
    assert [records.forget_wafers(received_before=MOMENT, at_most=3) for _ in range(2)] == [2, 0]


def test_a_deleted_wafer_that_comes_again_is_a_new_one(records: Records) -> None:
    receive(records, "again", OLD)
    records.forget_wafers(received_before=MOMENT)
    receive(records, "again", NEW)

    assert records.image("fab1", "cam1", "again") == b"a file"


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_wafer_that_somebody_writes_to_at_this_moment_is_not_waited_for(records: Records, database: str) -> None:
    receive(records, "busy", OLD)
    receive(records, "idle", OLD)
    engine = connect(database)
    with engine.begin() as other:
        other.execute(wafers.update().where(wafers.c.imgid == "busy").values(received=NEW))
        assert records.forget_wafers(received_before=MOMENT) == 1
    engine.dispose()
    assert names(records) == ["busy"]
