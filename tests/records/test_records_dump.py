"""Dumps of the records: all tables, as they are at one moment, from one kind of database into another."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.records import Drawing, Records, SchemaError, migrate
from fabwafer.records.dump import Dump, RecordsNotEmptyError, dump_file, read_rows
from fabwafer.records.engine import connect, reading, writing
from fabwafer.records.image_archives import ArchiveReader, ArchiveWriter, EarlierPlaces, ImageDamagedError, Place
from fabwafer.records.tables import SCHEMA, metadata
from tests.support.postgres import fresh_database
from tests.support.records import CAPTURED, predicted, shot

NOTHING_EARLIER = EarlierPlaces([], ())
EVERY_BYTE = bytes(range(256)) * 300
NOVEMBER = 1_700_000_000_000
DECEMBER = NOVEMBER + 30 * 86_400_000


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of another database with tables and nothing in them."""
    if request.param == "sqlite":
        file = tmp_path / "target.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
        yield f"sqlite:///{file}"
    else:
        with fresh_database(request.getfixturevalue("postgres_server")) as url:
            migrate(url)
            yield url


def fill(records: Records) -> None:
    """Write something into every table, and something into every column."""
    context: dict[str, Any] = {"lot": "L1", "slot": "3", "product": "P", "tool": "T", "step": "S", "notch": "N"}
    counts = {"rows": 30, "columns": 28, "passed": 600, "failed": 40, "regions": 3, "largest": 31}
    records.store_shots(
        [
            shot(EVERY_BYTE, received=NOVEMBER, note={"a": [1, 2.5, None, "é"]}, **context),
            shot(b"later", received=DECEMBER, sequence=2, timestamp=CAPTURED + 1),
            shot(b"deleted by age", received=1, imgid="img2"),
        ]
    )
    records.forget_images(received_before=2)
    records.store_predictions(
        [
            predicted(
                probability=0.1 + 0.2,
                wafer=True,
                review=True,
                review_reason="unsure",
                review_detail="a \u2028 b",
                probabilities={"Loc": 0.3, "none": 0.7},
                map=counts,
                embedding=[0.5, -1.25],
                note="unknown",
                **context,
            ),
            predicted("Donut", imgid="img2", received=5),
            predicted("Scratch", source="device", model="edge", received=6),
            predicted("Center", model="v2", shadow=True, received=7),
        ]
    )
    records.mark_alert_failed([records.pending_alerts()[0].id], "the webhook is away")
    records.mark_alert_sent([records.pending_alerts()[0].id])
    records.set_threshold(0.75, "fab1", "cam1", "Loc")
    records.set_threshold(0.5)
    records.set_drawing(Drawing("fab1", None, StatedColours.model_validate({"passed": "#00ff00", "failed": "#ff0000"})))
    records.add_review("fab1", "cam1", "img2", label="Donut", reviewer="kim", note="sure", at=9)
    records.set_rollout("v1", author="kim", candidate="v2", share=0.1, at=10)
    records.set_rollout("v2", author="kim", at=11)
    records.set_rollout("v2", author="fabwafer", at=12, refused="v3", reason="its pod was not ready")


def all_rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All that the tables hold."""
    engine = connect(url)
    with reading(engine) as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return found


def nobody(_table: str, _rows: int) -> None:
    """Nobody looks at the progress."""


def dumped(records: Records, folder: Path, run: str = "1", earlier: EarlierPlaces = NOTHING_EARLIER) -> Dump:
    (folder / run).mkdir(parents=True)
    with records.moment() as moment, ArchiveWriter(folder, run) as images:
        return moment.dump(folder / run, images, earlier, nobody)


def load(url: str, folder: Path, run: str = "1") -> None:
    with Records(url) as records, ArchiveReader(folder) as images:
        records.load(folder / run, images, nobody)


def earlier_places(folder: Path, run: str = "1") -> EarlierPlaces:
    return EarlierPlaces(read_rows(dump_file(folder / run, "shots")), {one.name for one in folder.glob("*.tar")})


def test_every_table_comes_back_as_it_was(records: Records, database: str, target: str, tmp_path: Path) -> None:
    fill(records)
    before = all_rows(database)
    assert [name for name, rows in before.items() if not rows] == [], "a table that this test does not cover"
    empty = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for index, column in enumerate(table.c)
        if all(row[index] is None for row in before[table.name])
    ]
    assert empty == [], "columns that this test does not cover"

    result = dumped(records, tmp_path / "dump")
    load(target, tmp_path / "dump")

    assert all_rows(target) == before
    assert result == Dump(SCHEMA, {name: len(rows) for name, rows in before.items()}, 2)
    with Records(target) as there:
        assert there.image("fab1", "cam1", "img1") == b"later"
        assert there.holds(tmp_path / "dump" / "1")
        assert list(there.wafers()) == list(records.wafers())


def test_what_is_received_after_loading_gets_numbers_of_its_own(records: Records, target: str, tmp_path: Path) -> None:
    fill(records)
    dumped(records, tmp_path / "dump")
    load(target, tmp_path / "dump")

    with Records(target) as there:
        assert there.store_shots([shot(b"new", imgid="img9")]) == 1
        assert len(there.store_predictions([predicted(imgid="img9")]).new) == 1
        there.add_review("fab1", "cam1", "img9", label="Loc", reviewer="kim")
        there.set_rollout("v3", author="kim")
        last, before = (one.number for one in there.rollouts()[:2])
        assert last == before + 1
        assert not there.holds(tmp_path / "dump" / "1")


def test_a_sent_alert_stays_sent_and_a_pending_one_pending_under_its_id(
    records: Records, target: str, tmp_path: Path
) -> None:
    fill(records)
    records.store_predictions([predicted("Edge-Ring", imgid="img3")])
    before = records.pending_alerts()
    assert [(one.alert.imgid, one.attempts) for one in before] == [("img3", 0), ("img2", 1)]
    dumped(records, tmp_path / "dump")
    load(target, tmp_path / "dump")

    with Records(target) as there:
        assert there.pending_alerts() == before
        # The messages of these predictions come again, too, when they were under way.
        again = [predicted("Donut", imgid="img2"), predicted("Scratch", source="device", model="edge")]
        assert there.store_predictions(again).alerts == []
        assert there.pending_alerts() == before


def test_a_dump_is_of_one_moment_whatever_is_written_meanwhile(records: Records, database: str, tmp_path: Path) -> None:
    fill(records)
    before = all_rows(database)

    def write(imgid: str) -> None:
        with Records(database) as other:
            other.store_shots([shot(b"late", imgid=imgid)])
            other.store_predictions([predicted(imgid=imgid)])
            other.add_review("fab1", "cam1", "img1", label="Loc", reviewer="kim")

    class Meddling(ArchiveWriter):
        def add(self, received: int, digest: bytes, data: bytes) -> Place:
            write(f"meanwhile{received}")
            return super().add(received, digest, data)

    folder = tmp_path / "dump"
    (folder / "1").mkdir(parents=True)
    with records.moment() as moment, Meddling(folder, "1") as images:
        write("first")
        result = moment.dump(folder / "1", images, NOTHING_EARLIER, nobody)

    assert result.rows == {name: len(rows) for name, rows in before.items()}
    assert records.count() == result.rows["wafers"] + 3


def test_a_later_dump_has_only_the_images_that_the_earlier_one_has_not(
    records: Records, target: str, tmp_path: Path
) -> None:
    fill(records)
    folder = tmp_path / "dump"
    dumped(records, folder)
    records.store_shots([shot(b"new", imgid="img9", received=DECEMBER)])

    assert dumped(records, folder, "2", earlier_places(folder)).new_images == 1

    assert sorted(one.name for one in folder.glob("*.tar")) == ["2023-11-1.tar", "2023-12-1.tar", "2023-12-2.tar"]
    load(target, folder, "2")
    with Records(target) as there:
        assert there.image("fab1", "cam1", "img9") == b"new"
        assert there.image("fab1", "cam1", "img1") == b"later"


def test_images_of_an_archive_that_is_gone_are_written_again(records: Records, tmp_path: Path) -> None:
    fill(records)
    folder = tmp_path / "dump"
    dumped(records, folder)
    (folder / "2023-11-1.tar").unlink()

    assert dumped(records, folder, "2", earlier_places(folder)).new_images == 1


def test_the_images_of_another_system_are_not_taken_for_this_ones(
    records: Records, target: str, tmp_path: Path
) -> None:
    folder = tmp_path / "dump"
    records.store_shots([shot(b"of this system")])
    dumped(records, folder)
    with Records(target) as other:
        other.store_shots([shot(b"of another")])
        assert dumped(other, folder, "2", earlier_places(folder)).new_images == 1


def test_an_image_can_be_had_with_tar_alone(records: Records, tmp_path: Path) -> None:
    records.store_shots([shot(EVERY_BYTE, received=NOVEMBER)])
    dumped(records, tmp_path / "dump")
    with tarfile.open(tmp_path / "dump" / "2023-11-1.tar") as archive:
        [member] = archive.getmembers()
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == EVERY_BYTE


def test_a_damaged_image_is_refused_and_nothing_is_loaded(records: Records, target: str, tmp_path: Path) -> None:
    fill(records)
    folder = tmp_path / "dump"
    dumped(records, folder)
    archive = folder / "2023-11-1.tar"
    content = bytearray(archive.read_bytes())
    content[600] ^= 1
    archive.write_bytes(content)
    before = all_rows(target)

    with pytest.raises(ImageDamagedError, match=r"expected an image with the sha256 .* in .*2023-11-1\.tar"):
        load(target, folder)
    assert all_rows(target) == before


def test_records_that_hold_something_are_left_as_they_are(records: Records, target: str, tmp_path: Path) -> None:
    fill(records)
    dumped(records, tmp_path / "dump")
    with Records(target) as there:
        there.store_shots([shot(imgid="mine")])
        there.set_threshold(0.9)
        assert there.obstacles() == ["1 thresholds", "1 wafers", "1 shots"]
        before = all_rows(target)
        with pytest.raises(RecordsNotEmptyError, match="not empty, they hold 1 thresholds, 1 wafers, 1 shots"):
            load(target, tmp_path / "dump")
        assert not there.holds(tmp_path / "dump" / "1")
    assert all_rows(target) == before


def test_the_rollout_of_a_systems_set_up_gives_way(records: Records, target: str, tmp_path: Path) -> None:
    fill(records)
    dumped(records, tmp_path / "dump")
    with Records(target) as there:
        there.set_rollout("shipped", author="fabwafer")
        assert there.obstacles() == []
        load(target, tmp_path / "dump")
        assert there.rollouts() == records.rollouts()


def test_a_dump_of_older_tables_is_loaded_without_what_they_had_not(
    records: Records, target: str, tmp_path: Path
) -> None:
    fill(records)
    folder = tmp_path / "dump"
    dumped(records, folder)
    dump_file(folder / "1", "drawings").unlink()
    file = dump_file(folder / "1", "predictions")
    rows = [{name: value for name, value in row.items() if name != "review_detail"} for row in read_rows(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    load(target, folder)

    with Records(target) as there:
        assert there.drawings() == []
        assert there.count() == records.count()
        assert {one.review_detail for wafer in there.wafers() for one in wafer.predictions} == {None}


def test_tables_of_a_later_program_are_not_dumped_without_what_it_knows_more(
    records: Records, database: str, tmp_path: Path
) -> None:
    engine = connect(database)
    set_version = text("UPDATE alembic_version SET version_num = :version")
    with writing(engine) as connection:
        connection.execute(set_version, {"version": "0_1_999"})
    try:
        with pytest.raises(SchemaError, match="use a newer fabwafer"):
            dumped(records, tmp_path / "dump")
    finally:
        with writing(engine) as connection:
            connection.execute(set_version, {"version": SCHEMA})
        engine.dispose()
