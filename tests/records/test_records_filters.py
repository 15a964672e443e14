"""Filters, pages and counts say the same of the records as the full records do, and read what they need only."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from fabwafer.messages.bodies import CONTEXT_FIELDS
from fabwafer.records import CursorError, Filter, Records, WaferRecord, WaferRow
from fabwafer.records.engine import connect, reading, writing
from fabwafer.records.wafers import find_wafers
from tests.support.records import empty, predicted, shot

COUNTS = {"rows": 30, "columns": 28, "passed": 600, "failed": 40, "regions": 3, "largest": 31}

names = st.sampled_from(["a", "b", "c"])
lots = st.sampled_from([None, "L1", "L2"])
made_shots = st.builds(lambda **fields: ("shot", fields), imgid=names, timestamp=st.integers(1, 2), lot=lots)
made_predictions = st.builds(
    lambda **fields: ("prediction", fields),
    imgid=names,
    fab=st.sampled_from(["fab1", "fab2"]),
    prediction=st.sampled_from(["Loc", "Donut", "none"]),
    probability=st.sampled_from([0.25, 0.5, 0.75]),
    timestamp=st.integers(1, 3),
    model=st.sampled_from(["v1", "v2"]),
    source=st.sampled_from(["device", "cluster"]),
    review=st.sampled_from([None, False, True]),
    shadow=st.booleans(),
    tool=st.sampled_from([None, "T1"]),
)
made_reviews = st.builds(lambda **fields: ("review", fields), imgid=names, label=st.sampled_from(["Loc", "none"]))
filters = st.builds(
    Filter,
    fab=st.sampled_from([None, None, "fab1"]),
    camera=st.sampled_from([None, "cam1"]),
    imgid=st.sampled_from([None, None, "a"]),
    lot=lots,
    tool=st.sampled_from([None, None, "T1"]),
    label=st.sampled_from([None, "Loc", "none"]),
    alert=st.sampled_from([None, None, True, False]),
    needs_review=st.sampled_from([None, None, True, False]),
    reviewed=st.sampled_from([None, None, True, False]),
    since=st.sampled_from([None, None, 3]),
    until=st.sampled_from([None, None, 6]),
    min_probability=st.sampled_from([None, None, 0.5]),
    max_probability=st.sampled_from([None, None, 0.5]),
)


def store(records: Records, kind: str, fields: dict[str, Any], number: int) -> None:
    receipt: dict[str, Any] = {"received": number // 2, "sequence": number}
    if kind == "shot":
        records.store_shots([shot(f"{number}".encode(), **fields, **receipt)])
    elif kind == "prediction":
        shadow = fields["shadow"] and fields["source"] == "cluster"
        records.store_predictions([predicted(**{**fields, "shadow": shadow}, **receipt)])
    elif records.wafer("fab1", "cam1", fields["imgid"]):
        records.add_review("fab1", "cam1", **fields, reviewer="kim", at=number)


def matches(record: WaferRecord, wanted: Filter) -> bool:
    """Whether a record matches a filter, as the filter's fields are described."""
    current = record.current
    contexts = [part.context for parts in (record.shots, record.predictions) for part in parts]
    return all(
        [
            wanted.fab in (None, record.fab),
            wanted.camera in (None, record.camera),
            wanted.imgid in (None, record.imgid),
            *(
                (value := getattr(wanted, name)) is None or any(context.get(name) == value for context in contexts)
                for name in CONTEXT_FIELDS
            ),
            wanted.label is None or (current is not None and current.prediction == wanted.label),
            wanted.alert in (None, record.alert),
            wanted.reviewed in (None, bool(record.reviews)),
            wanted.needs_review in (None, bool(current and current.review and not record.reviews)),
            wanted.since is None or record.received >= wanted.since,
            wanted.until is None or record.received < wanted.until,
            wanted.min_probability is None or (current is not None and current.probability >= wanted.min_probability),
            wanted.max_probability is None or (current is not None and current.probability <= wanted.max_probability),
        ]
    )


def shown(record: WaferRecord) -> dict[str, Any]:
    """What the row of a record holds, but for its id."""
    current = record.current
    return {
        **{name: getattr(record, name) for name in ("fab", "camera", "imgid", "received", "timestamp", "context")},
        **{name: getattr(record, name) for name in ("map", "alert")},
        "label": current.prediction if current else None,
        **{
            name: getattr(current, name) if current else None
            for name in ("probability", "model", "source", "review", "review_reason")
        },
        "reviewed": record.review.label if record.review else None,
    }


def fields_of(row: WaferRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in WaferRow.__slots__ if name != "id"}


def pages(records: Records, wanted: Filter, size: int, *, newest_first: bool) -> Iterator[list[WaferRow]]:
    cursor = None
    while True:
        page = records.page(wanted, cursor=cursor, size=size, newest_first=newest_first)
        assert len(page.rows) == size if page.cursor else len(page.rows) <= size
        yield page.rows
        cursor = page.cursor
        if cursor is None:
            return


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(st.one_of(made_shots, made_predictions, made_predictions, made_reviews), max_size=14),
    order=st.randoms(use_true_random=False),
    wanted=st.lists(filters, min_size=5, max_size=5),
    size=st.integers(1, 4),
)
def test_a_filter_finds_the_records_that_it_describes(
    database: str, made: list[tuple[str, dict[str, Any]]], order: Any, wanted: list[Filter], size: int
) -> None:
    empty(database)
    numbered = list(enumerate(made))
    order.shuffle(numbered)  # messages are not always stored in the order of their receipt
    with Records(database) as records:
        for number, (kind, fields) in numbered:
            store(records, kind, fields, number)
        everything = list(records.wafers())
        for one in (Filter(), *wanted):
            expected = [record for record in everything if matches(record, one)]
            assert list(records.wafers(one)) == expected
            assert records.count(one) == len(expected)
            by_name = [row for page in pages(records, one, size, newest_first=False) for row in page]
            assert [fields_of(row) for row in by_name] == [shown(record) for record in expected]
            newest = [row for page in pages(records, one, size, newest_first=True) for row in page]
            assert newest == sorted(by_name, key=lambda row: (row.received, row.id), reverse=True)


def test_pages_follow_each_other_to_the_end(records: Records) -> None:
    records.store_shots([shot(imgid=f"i{number}", received=number) for number in range(7)])

    first = records.page(size=3)
    assert [row.imgid for row in first.rows] == ["i6", "i5", "i4"]
    second = records.page(size=3, cursor=first.cursor)
    assert [row.imgid for row in second.rows] == ["i3", "i2", "i1"]
    third = records.page(size=3, cursor=second.cursor)
    assert ([row.imgid for row in third.rows], third.cursor) == (["i0"], None)
    assert records.page(size=7).cursor is None
    assert records.page(Filter(fab="none"), size=7).rows == []


def test_what_arrives_between_two_pages_shows_no_wafer_twice(records: Records) -> None:
    records.store_shots([shot(imgid=f"i{number}", received=number) for number in range(4)])
    first = records.page(size=2)
    records.store_predictions([predicted(imgid="i3", received=9), predicted(imgid="i9", received=9)])

    assert [row.imgid for row in records.page(size=2, cursor=first.cursor).rows] == ["i1", "i0"]


def encoded(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param("", id="empty"),
        pytest.param("x", id="no base64"),
        pytest.param("é", id="not ASCII"),
        pytest.param(encoded("null"), id="null"),
        pytest.param(encoded("[]"), id="no place"),
        pytest.param(encoded("[1, 2] 3"), id="no JSON"),
        pytest.param(encoded('[1, "2"]'), id="a text for a number"),
        pytest.param(encoded("[true, 1]"), id="a boolean for a number"),
        pytest.param(encoded("[1e99, 1]"), id="a fraction"),
        pytest.param(encoded("[1, 1" + "0" * 30 + "]"), id="too large a number"),
        pytest.param(encoded("[1, 1" + "0" * 9000 + "]"), id="a number of 9000 digits"),
        pytest.param(encoded("[" * 9000), id="deep nesting"),
    ],
)
def test_a_cursor_that_no_page_gave_is_refused_in_a_sentence(records: Records, cursor: str) -> None:
    with pytest.raises(CursorError, match="start without one"):
        records.page(cursor=cursor)


def test_a_cursor_of_another_order_is_refused(records: Records) -> None:
    records.store_shots([shot(imgid=f"i{number}") for number in range(3)])
    by_name = records.page(size=1, newest_first=False).cursor
    newest = records.page(size=1).cursor
    with pytest.raises(CursorError):
        records.page(cursor=by_name)
    with pytest.raises(CursorError):
        records.page(cursor=newest, newest_first=False)


def test_a_filter_may_hold_any_text(records: Records) -> None:
    records.store_predictions([predicted(lot="a\0b")])

    assert records.count(Filter(lot="a\0b")) == 1
    assert records.count(Filter(fab="\0", camera="'; --", label="%")) == 0


def test_a_wafer_is_read_by_its_name(records: Records) -> None:
    records.store_shots([shot(imgid="a"), shot(imgid="b")])

    found = records.wafer("fab1", "cam1", "a")
    assert found is not None
    assert (found.imgid, len(found.shots)) == ("a", 1)
    assert records.wafer("fab1", "cam1", "c") is None


def test_a_wafer_needs_a_review_until_there_is_one(records: Records) -> None:
    unsure = Filter(needs_review=True)
    records.store_predictions([predicted(review=True)])
    assert records.count(unsure) == 1

    records.add_review("fab1", "cam1", "img1", label="Loc", reviewer="kim")
    records.store_predictions([predicted(review=True, received=9, timestamp=9)])
    assert records.count(unsure) == 0
    assert records.count(Filter(reviewed=True)) == 1


@pytest.fixture
def many(database: str) -> str:
    """The URL of a database with 20,000 wafers, of which few have anything special."""
    engine = connect(database)
    numbers = {
        "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)",
        "postgresql": "WITH numbers(n) AS (SELECT generate_series(1, 20000))",
    }[engine.dialect.name]
    with writing(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO wafers (id, fab, camera, imgid, received, current_id, label, probability, alert, reviewed,"
                f" needs_review) {numbers} SELECT n, 'fab' || (n % 3), 'cam' || (n % 50), 'i' || n, n, n,"
                " CASE n % 500 WHEN 0 THEN 'Loc' ELSE 'none' END, 0.5, n % 500 = 0, n % 400 = 0, n % 300 = 0"
                " FROM numbers"
            )
        )
        connection.execute(
            text(
                "INSERT INTO shots (id, wafer_id, timestamp, received, sequence, digest, lot)"
                f" {numbers} SELECT n, n, n, n, n, '', 'L' || (n / 25) FROM numbers"
            )
        )
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    engine.dispose()
    return database


def test_a_page_is_found_by_an_index(many: str) -> None:
    expected = [
        (Filter(), "ix_wafers_received"),
        (Filter(since=19_000, until=20_000), "ix_wafers_received"),
        (Filter(min_probability=0.5), "ix_wafers_received"),
        (Filter(reviewed=False), "ix_wafers_received"),
        (Filter(fab="fab1", camera="cam1"), "ix_wafers_camera"),
        (Filter(label="Loc"), "ix_wafers_label"),
        (Filter(label="Loc", max_probability=0.5), "ix_wafers_label"),
        (Filter(alert=True), "ix_wafers_alert"),
        (Filter(reviewed=True), "ix_wafers_reviewed"),
        (Filter(needs_review=True), "ix_wafers_needs_review"),
        (Filter(imgid="i7"), "ix_wafers_imgid"),
        (Filter(lot="L7"), "ix_shots_lot"),
    ]
    assert [(wanted, index) for wanted, index in expected if index not in plan(many, wanted)] == []


def plan(database: str, wanted: Filter) -> str:
    """How the database finds a page of the newest."""
    engine = connect(database)
    asked: list[Any] = []
    with reading(engine) as connection:
        event.listen(connection, "before_cursor_execute", lambda *execution: asked.append(execution[2:4]))
        find_wafers(connection, wanted, None, 50, newest_first=True)
        [(statement, parameters)] = asked
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    engine.dispose()
    return "\n".join(str(row) for row in rows)
