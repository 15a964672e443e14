"""`fabwafer records` prints records, for people and for scripts."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fabwafer.records import Records, migrate
from tests.support.records import CAPTURED, predicted, shot

COUNTS = {"rows": 30, "columns": 28, "passed": 600, "failed": 40, "regions": 3, "largest": 31}


def run(*arguments: str | Path, database: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": "/nonexistent", "COLUMNS": "200"}
    if database:
        environment["FABWAFER_DATABASE_URL"] = database
    command = [sys.executable, "-m", "fabwafer.cli", "records", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


def lines(*arguments: str | Path, database: str | None = None) -> list[dict[str, Any]]:
    done = run(*arguments, "--json", database=database)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_record_is_a_line(database: str) -> None:
    with Records(database) as records:
        records.store_shots([shot(imgid="a", lot="L1"), shot(imgid="b")])
        records.store_predictions(
            [
                predicted("Loc", 0.875, imgid="a", wafer=True, map=COUNTS, received=2),
                predicted("none", 0.5, imgid="a", source="device", model="unknown", timestamp=CAPTURED + 1, received=3),
                predicted("Loc", 0.75, imgid="a", model="v2", shadow=True, received=4),
            ]
        )
        records.add_review("fab1", "cam1", "a", label="Loc", reviewer="lee", note="at the edge", at=8)
        records.add_review("fab1", "cam1", "a", label="Scratch", reviewer="kim", at=9)

    [first, second] = lines(database=database)
    cluster, device, shadow = first.pop("predictions")
    assert first == {
        "fab": "fab1",
        "camera": "cam1",
        "imgid": "a",
        "timestamp": CAPTURED,
        "lot": "L1",
        "images": 1,
        "map": COUNTS,
        "reviews": [
            {"label": "Loc", "reviewer": "lee", "time": 8, "note": "at the edge"},
            {"label": "Scratch", "reviewer": "kim", "time": 9, "note": None},
        ],
    }
    assert cluster == {
        "source": "cluster",
        "model": "v1",
        "timestamp": CAPTURED,
        "prediction": "Loc",
        "probability": 0.875,
        "wafer": True,
        "alert": True,
    }
    assert (device["source"], device["model"], device["wafer"], device["alert"]) == ("device", "unknown", None, False)
    assert (shadow["model"], shadow["shadow"], shadow["alert"]) == ("v2", True, False)
    assert (second["imgid"], second["predictions"]) == ("b", [])


def test_records_are_chosen_by_fab_camera_image_and_lot(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    with Records(url) as records:
        records.store_shots([shot(fab=f, camera=c, imgid=i, lot=f + i) for f in "fg" for c in "cd" for i in "ij"])

    assert len(lines(database=url)) == 8
    assert len(lines("--fab", "f", database=url)) == 4
    assert len(lines("--fab", "f", "--camera", "c", database=url)) == 2
    assert len(lines("--imgid", "i", database=url)) == 4
    assert len(lines("--lot", "gj", database=url)) == 2
    assert lines("--fab", "h", database=url) == []


def test_records_are_chosen_by_what_became_of_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    with Records(url) as records:
        records.store_predictions(
            [
                predicted("Loc", imgid="alert"),
                predicted("Loc", 0.3, imgid="quiet", review=True),
                predicted("none", imgid="reviewed", review=True),
            ]
        )
        records.add_review("fab1", "cam1", "reviewed", label="Donut", reviewer="kim")

    assert [line["imgid"] for line in lines("--class", "loc", database=url)] == ["alert", "quiet"]
    assert [line["imgid"] for line in lines("--alert", database=url)] == ["alert"]
    assert [line["imgid"] for line in lines("--needs-review", database=url)] == ["quiet"]
    table = run(database=url).stdout
    assert [label for label in ("needed", "Donut") if label in table] == ["needed", "Donut"]


def test_what_a_device_names_commands_no_terminal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    with Records(url) as records:
        records.store_predictions([predicted("\x1b[2J[red]Loc:smile:\n\u202e", source="device")])

    assert "\\x1b[2J[red]Loc:smile:\\n\\u202e" in run(database=url).stdout


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """The data directory of a local system that has stopped, with records of 30 wafers."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    with Records(url) as records:
        records.store_predictions(
            [predicted(imgid=f"i{number:02}", received=number, map=COUNTS) for number in range(30)]
        )
    return tmp_path


def test_all_records_of_a_data_directory_are_printed_though_nothing_runs_there(system: Path) -> None:
    assert len(lines("--data", system)) == 30


def test_people_see_the_newest_and_how_many_more_there_are(system: Path) -> None:
    done = run("--data", system)

    assert done.returncode == 0
    assert done.stdout.index("i29") < done.stdout.index("i10")
    assert "i09" not in done.stdout
    assert "and 10 more" in done.stdout
    assert "93.8%" in done.stdout


def test_without_records_it_says_so(tmp_path: Path) -> None:
    done = run("--data", tmp_path, "--json")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"no records in {tmp_path}")
    assert len(done.stderr.splitlines()) == 1


def test_tables_that_do_not_fit_are_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "records.db").touch()
    done = run("--data", tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert "run the migrations first" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_does_not_answer_is_named_in_one_sentence() -> None:
    done = run("--json", database="postgresql://nobody@127.0.0.1:1/none")

    assert (done.returncode, done.stdout) == (1, "")
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_text("something else" * 100)
    done = run("--data", tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert "not a database" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_starts_without_the_migrations_or_anything_heavier() -> None:
    probe = "import sys, fabwafer.records; print([m for m in ('alembic', 'numpy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_reason_for_a_review_stands_in_the_table_of_a_narrow_terminal(database: str) -> None:
    with Records(database) as records:
        records.store_predictions(
            [
                predicted(
                    "Near-full",
                    0.94,
                    fab="demo",
                    camera="camera1",
                    imgid="026-Scratch",
                    model="0.5.1",
                    review=True,
                    review_reason="unsure",
                    map=COUNTS,
                )
            ]
        )
    done = subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", "records"],
        env={"HOME": "/nonexistent", "COLUMNS": "80", "FABWAFER_DATABASE_URL": database},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert any("unsure" in line for line in lines)
    assert len(lines) <= 5, done.stdout


def test_wafers_are_found_by_when_they_were_received(database: str) -> None:
    noon = datetime(2026, 5, 4, 12, 0).astimezone()
    with Records(database) as records:
        for hours, imgid in enumerate("abc"):
            records.store_shots([shot(imgid=imgid, received=round((noon.timestamp() + 3600 * hours) * 1000))])
    found = lines("--since", "2026-05-04T13:00", "--until", "2026-05-04 14:00:00", database=database)
    assert [one["imgid"] for one in found] == ["b"]
    assert [one["imgid"] for one in lines("--since", "2026-05-05", database=database)] == []
    wrong = run("--since", "yesterday", database=database)
    assert wrong.returncode == 2
    assert "yesterday" in wrong.stderr
