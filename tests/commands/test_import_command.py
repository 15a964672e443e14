"""`fabwafer import aws` says what came, what was there already and what was refused, to people and to scripts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fabwafer.commands import imports
from fabwafer.errors import FabwaferError
from fabwafer.records import Records
from tests.support.workshop import ground_truth, item, map_file, write_lines, write_scan


@pytest.fixture
def own_records(tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of records with nothing in them; the environment names them."""
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    url = f"sqlite:///{tmp_path / 'records.db'}"
    monkeypatch.setenv("FABWAFER_DATABASE_URL", url)
    monkeypatch.setenv("COLUMNS", "200")
    return url


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(imports.app, ["aws", *map(str, words)])


def test_tables_and_images_come_in_by_one_command(own_records: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "export" / "data" / "a.json.gz", [item("img1"), item("img2")])
    overrides = write_scan(tmp_path / "overrides.json", [ground_truth("img1")])
    image = tmp_path / "bucket" / "faba" / "camera1" / "img1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(map_file())
    words = (tmp_path / "export", overrides, "--images", tmp_path / "bucket")

    first, again = run(*words), run(*words)

    assert (first.exit_code, again.exit_code) == (0, 0), first.stderr
    assert [line.split() for line in first.stdout.splitlines() if "images" in line] == [["images", "1", "0", "0"]]
    assert [line.split() for line in again.stdout.splitlines() if "predictions" in line] == [
        ["predictions", "0", "2", "0"]
    ]
    assert "refused" not in first.stdout.partition("reviews")[2]
    with Records(own_records) as records:
        assert records.count() == 2


def test_what_was_refused_is_in_a_table_with_the_first_of_each_reason(own_records: str, tmp_path: Path) -> None:
    bad = [item(f"img{number}", probability=200 + number) for number in range(3)]
    export = write_lines(tmp_path / "a.json.gz", [item("img1"), *bad, "{", item("\x1b[31mred")])

    result = run(export)

    assert result.exit_code == 1
    assert "a.json.gz:2: field 'probability': expected 0 to 1, or percent up to 100, got 200" in result.stdout
    assert "201" not in result.stdout
    [line] = [line.split() for line in result.stdout.splitlines() if line.lstrip().startswith("other rows")]
    assert line == ["other", "rows", "0", "0", "1"]
    assert "\x1b[31m" not in result.stdout


def test_json_names_each_that_was_refused(own_records: str, tmp_path: Path) -> None:
    export = write_lines(tmp_path / "a.json.gz", [item("img1"), item("img.2"), item("img.3"), "{"])

    result = run(export, "--json")

    lines: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["refused"]["place"] for line in lines[:-1]] == [f"{export}:{number}" for number in (2, 3, 4)]
    assert lines[0]["refused"]["kind"] == "prediction"
    assert lines[-1] == {
        "predictions": {"new": 1, "known": 0, "refused": 2},
        "images": {"new": 0, "known": 0, "refused": 0},
        "reviews": {"new": 0, "known": 0, "refused": 0},
        "rows": {"new": 0, "known": 0, "refused": 1},
        "uncounted": 0,
    }
    assert result.exit_code == 1


def test_a_long_import_says_how_far_it_is(own_records: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_EVERY", 1_000)
    export = write_lines(tmp_path / "a.json.gz", [item(f"img{number}") for number in range(2_200)])

    assert run(export).stderr.splitlines() == [
        f"{read} read: {read} new, 0 there already, 0 refused" for read in (1_000, 2_000)
    ]


def test_where_there_is_nothing_to_import_that_is_said(own_records: str, tmp_path: Path) -> None:
    with pytest.raises(FabwaferError, match="expected an export of a table, or --images DIR, got neither"):
        CliRunner().invoke(imports.app, ["aws"], catch_exceptions=False)
    with pytest.raises(FabwaferError, match="no such folder"):
        CliRunner().invoke(imports.app, ["aws", "--images", str(tmp_path / "absent")], catch_exceptions=False)
    with pytest.raises(FabwaferError, match="no such file or folder"):
        CliRunner().invoke(imports.app, ["aws", str(tmp_path / "absent")], catch_exceptions=False)
