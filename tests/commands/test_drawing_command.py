"""`fabwafer drawing` shows and sets what the colours of drawings mean."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fabwafer.commands.drawing import DrawingRefusedError, app
from fabwafer.maps.stated_colours import StatedColours, StatedColoursError
from fabwafer.records import Drawing, Records


@pytest.fixture
def system(tmp_path: Path, migrated_sqlite: Path) -> Path:
    """The data directory of a local system that has stopped, with no colours set."""
    (tmp_path / "records.db").write_bytes(migrated_sqlite.read_bytes())
    return tmp_path


def run(system: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--data", str(system), *arguments])


def test_what_was_set_is_shown_and_can_be_removed(system: Path) -> None:
    assert run(system).stdout == "No colours are set: drawings are read by the colours that are known\n"
    set_now = run(system, "--fab", "f", "--camera", "c", "--passed", "#00F", "--failed", "#ff0", "--failed", "f80")
    assert set_now.stdout == "camera c of fab f: passed #0000ff; failed #ffff00, #ff8800\n"
    assert run(system, "--fab", "f", "--passed", "#00ff00").exit_code == 0
    shown = [json.loads(line) for line in run(system, "--json").stdout.splitlines()]
    assert shown == [
        {"fab": "f", "camera": None, "colours": {"passed": ["#00ff00"]}},
        {"fab": "f", "camera": "c", "colours": {"passed": ["#0000ff"], "failed": ["#ffff00", "#ff8800"]}},
    ]
    assert run(system, "--fab", "f", "--camera", "c", "--remove").exit_code == 0
    with Records(f"sqlite:///{system / 'records.db'}") as records:
        assert records.drawings() == [Drawing("f", None, StatedColours(passed=("#00ff00",)))]


def test_a_setting_that_cannot_be_meant_is_refused(system: Path) -> None:
    for arguments, kind, reason in (
        (["--passed", "#000000"], DrawingRefusedError, "expected a fab"),
        (["--fab", "f", "--passed", "green"], StatedColoursError, "expected a colour as '#rrggbb', got 'green'"),
        (["--fab", "f", "--outside", "#fff"], StatedColoursError, "colours of passed dies, of failed dies, or both"),
        (["--fab", "f", "--remove"], DrawingRefusedError, "there is none"),
        (["--fab", "f", "--remove", "--passed", "#000"], DrawingRefusedError, "got both"),
    ):
        error = run(system, *arguments).exception
        assert isinstance(error, kind), arguments
        assert reason in str(error)


def test_the_settings_are_the_same_in_both_databases(records: Records) -> None:
    first, second = StatedColours(passed=("#000001",)), StatedColours(failed=("#000002",))
    records.set_drawing(Drawing("fab1", "cam1", first))
    records.set_drawing(Drawing("fab1", None, first))
    records.set_drawing(Drawing("fab1", "cam1", second))
    assert records.drawings() == [Drawing("fab1", None, first), Drawing("fab1", "cam1", second)]
    assert records.remove_drawing("fab1")
    assert not records.remove_drawing("fab1")
    assert records.drawings() == [Drawing("fab1", "cam1", second)]
