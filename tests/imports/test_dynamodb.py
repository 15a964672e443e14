"""Exports of DynamoDB are read a row at a time; a row that cannot be read is named, and the others are read."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from fabwafer.imports.dynamodb import LONGEST_ROW, ExportError, Row, find_exports, read_export
from tests.support.workshop import item, write_lines, write_scan

PLAIN = {
    "imgid": "img1",
    "timestamp": 1_554_134_552,
    "fab": "faba",
    "camera": "camera1",
    "prediction": "Loc",
    "probability": 50.0,
}


def reasons(rows: list[Row]) -> list[str]:
    return [row.reason for row in rows if row.fields is None]


def imgids(rows: list[Row]) -> list[str]:
    return [row.fields["imgid"] for row in rows if row.fields is not None]


def test_an_export_to_s3_has_an_item_a_line(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "data" / "a.json.gz", [item("img1"), item("img2")])

    [first, second] = read_export(file)
    assert (first.fields, first.place) == (PLAIN, f"{file}:1")
    assert second.place == f"{file}:2"


@pytest.mark.parametrize("indent", [None, 4])
def test_a_scan_is_one_document(tmp_path: Path, indent: int | None) -> None:
    document = {"Count": 2, "Items": [item("img1"), item("img2")], "ScannedCount": 2, "ConsumedCapacity": None}
    file = tmp_path / "scan.json"
    file.write_text(json.dumps(document, indent=indent))

    rows = list(read_export(file))
    assert imgids(rows) == ["img1", "img2"]
    assert rows[0].fields == PLAIN
    assert rows[1].place == f"{file} item 2"


def test_pages_of_a_scan_may_follow_each_other(tmp_path: Path) -> None:
    first = write_scan(tmp_path / "1.json", [item("img1")]).read_text()
    file = tmp_path / "both.json"
    file.write_text(first + "\n" + write_scan(tmp_path / "2.json", []).read_text() + first)

    assert imgids(list(read_export(file))) == ["img1", "img1"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_writes_at_the_start_of_a_file_is_skipped(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "scan.json"
    file.write_text(write_scan(tmp_path / "plain.json", [item("img1")]).read_text(), encoding=encoding)

    assert imgids(list(read_export(file))) == ["img1"]


def test_all_types_of_attributes_are_read(tmp_path: Path) -> None:
    of_all = {
        "s": {"S": "text"},
        "n": {"N": "-12"},
        "f": {"N": "1.5E+3"},
        "b": {"B": "aGk="},
        "t": {"BOOL": False},
        "z": {"NULL": True},
        "m": {"M": {"l": {"L": [{"N": "1"}, {"S": "x"}]}}},
        "ss": {"SS": ["a", "b"]},
        "ns": {"NS": ["1", "2.5"]},
        "bs": {"BS": ["aGk="]},
    }
    [row] = read_export(write_lines(tmp_path / "a.json.gz", [of_all]))
    assert row.fields == {
        "s": "text",
        "n": -12,
        "f": 1500.0,
        "b": "aGk=",
        "t": False,
        "z": None,
        "m": {"l": [1, "x"]},
        "ss": ["a", "b"],
        "ns": [1, 2.5],
        "bs": ["aGk="],
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"Item": {"imgid"', "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("null", "in DynamoDB JSON, got None"),
        ('{"imgid": "img1"}', "in DynamoDB JSON, got {'imgid'"),
        ('{"Item": {"imgid": "img1"}}', "field 'imgid': expected a typed value"),
        ('{"Item": {"imgid": {"S": "a", "N": "1"}}}', "field 'imgid': expected a typed value"),
        ('{"Item": {"imgid": {"S": 1}}}', "field 'imgid': expected a typed value"),
        ('{"Item": {"m": {"M": {"x": {"Q": 1}}}}}', "field 'm.x': expected a typed value"),
        ('{"Item": {"timestamp": {"N": "soon"}}}', "field 'timestamp': expected a number, got 'soon'"),
        ('{"Item": {"s": {"S": "' + "x" * LONGEST_ROW + '"}}}', f"at most {LONGEST_ROW} characters"),
    ],
)
def test_a_row_that_cannot_be_read_stops_none_of_its_neighbours(tmp_path: Path, line: str, reason: str) -> None:
    file = write_lines(tmp_path / "a.json.gz", [item("before"), line, item("after")])

    rows = list(read_export(file))
    assert imgids(rows) == ["before", "after"]
    [told] = reasons(rows)
    assert reason in told
    assert rows[1].place == f"{file}:2"


@pytest.mark.parametrize(
    "rest", ['{"broken', "5", '{"imgid": {"S": "x"}} oops]', "[" * 100_000, '"' + "x" * (LONGEST_ROW + 100_000)]
)
def test_a_scan_is_read_up_to_where_it_is_broken(tmp_path: Path, rest: str) -> None:
    file = tmp_path / "scan.json"
    file.write_text('{"Items": [' + json.dumps(item("img1")) + "," + rest)

    rows = list(read_export(file))
    assert imgids(rows)[0] == "img1"
    assert "what follows in this file is not read" in reasons(rows)[-1]


def test_an_item_of_a_scan_that_is_none_stops_none_of_its_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "scan.json"
    file.write_text(json.dumps({"Items": [item("img1"), 5, {"imgid": "plain"}, item("img2")]}))

    rows = list(read_export(file))
    assert imgids(rows) == ["img1", "img2"]
    assert len(reasons(rows)) == 2


def test_a_gzip_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    whole = write_lines(tmp_path / "a.json.gz", [item(f"img{number}") for number in range(20_000)])
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(whole.read_bytes()[:-200])

    rows = list(read_export(cut))
    assert len(imgids(rows)) > 10_000
    assert "the file is damaged" in reasons(rows)[-1]


def test_what_is_no_gzip_inside_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.json.gz"
    file.write_bytes(b"\x1f\x8b" + bytes(range(100)))

    [row] = read_export(file)
    assert "the file is damaged" in row.reason


def test_an_export_may_be_a_folder(tmp_path: Path) -> None:
    later = write_lines(tmp_path / "AWSDynamoDB" / "01" / "data" / "b.json.gz", [])
    first = write_lines(tmp_path / "AWSDynamoDB" / "01" / "data" / "a.json.gz", [])
    (tmp_path / "AWSDynamoDB" / "01" / "manifest-summary.json").write_text("{}")

    assert find_exports(tmp_path) == [first, later]
    assert find_exports(first) == [first]


def test_where_there_is_no_export_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such file"):
        find_exports(tmp_path / "absent")
    with pytest.raises(ExportError, match=r"expected a folder with the files \*.json.gz"):
        find_exports(tmp_path)
    (tmp_path / "a.ion.gz").touch()
    with pytest.raises(ExportError, match="format Ion: export it as DynamoDB JSON"):
        find_exports(tmp_path)


@pytest.mark.parametrize("form", ["lines", "scan"])
def test_a_hundred_thousand_rows_are_not_held_in_memory(tmp_path: Path, form: str) -> None:
    file = tmp_path / "table"
    with gzip.open(file, "wt", compresslevel=1) as out:
        separator, start, end = ("\n", "", "") if form == "lines" else (",", '{"Items": [', "]}")
        out.write(start)
        for number in range(100_000):
            one = item(f"img{number}")
            out.write((separator if number else "") + json.dumps({"Item": one} if form == "lines" else one))
        out.write(end)

    tracemalloc.start()
    rows = sum(row.fields is not None for row in read_export(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 100_000
    assert peak < 4_000_000  # the text is 15 MB, and several times that as Python's objects
