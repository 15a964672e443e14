"""`fabwafer threshold` shows and sets from which probability on a defect raises an alert."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fabwafer.records import Records
from tests.support.records import shot


@pytest.fixture
def system(tmp_path: Path, migrated_sqlite: Path) -> Path:
    """The data directory of a local system that has stopped, with no threshold set."""
    (tmp_path / "records.db").write_bytes(migrated_sqlite.read_bytes())
    return tmp_path


def run(system: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fabwafer.cli", "threshold", "--data", str(system), *arguments]
    environment = {"HOME": "/nonexistent", "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


def printed(system: Path, *arguments: str) -> str:
    done = run(system, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def line(fab: str | None, camera: str | None, label: str | None, value: float) -> dict[str, Any]:
    return {"fab": fab, "camera": camera, "class": label, "threshold": value}


def shown(system: Path, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(one) for one in printed(system, *arguments, "--json").splitlines()]


def test_without_a_value_the_default_is_shown(system: Path) -> None:
    assert printed(system) == "Any defect of all cameras alerts from 0.5 on\n"
    assert shown(system) == [line(None, None, None, 0.5)]


def test_what_was_set_is_shown_after_the_one_for_all(system: Path) -> None:
    assert printed(system, "0.8", "--class", "scratch") == "Scratch of all cameras alerts from 0.8 on\n"
    with Records(f"sqlite:///{system / 'records.db'}") as records:
        records.store_shots([shot(fab="f", camera="c", imgid="a")])
    assert shown(system, "0.25", "--fab", "f", "--camera", "c") == [line("f", "c", None, 0.25)]
    assert shown(system) == [
        line(None, None, None, 0.5),
        line(None, None, "Scratch", 0.8),
        line("f", "c", None, 0.25),
    ]
    assert shown(system, "--fab", "f") == [line("f", "c", None, 0.25)]
    printed(system, "0.4")
    assert printed(system).splitlines()[0] == "Any defect of all cameras alerts from 0.4 on"


def test_a_threshold_that_cannot_be_meant_is_refused(system: Path) -> None:
    for arguments in (["1.5"], ["--", "-0.1"], ["nan"], ["much"]):
        done = run(system, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
    done = run(system, "0.5", "--camera", "c")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "expected the fab of camera 'c' as well: cameras of two fabs may share a name\n"
    assert shown(system) == [line(None, None, None, 0.5)]


def test_a_threshold_is_removed_and_the_more_general_one_holds_again(system: Path) -> None:
    printed_without_warning = run(system, "0.8", "--class", "Scratch")
    assert printed_without_warning.stderr == ""
    done = run(system, "--remove", "--class", "scratch")
    assert (done.returncode, done.stdout) == (0, "removed: Scratch of all cameras alerts from 0.8 on\n")
    assert shown(system) == [line(None, None, None, 0.5)]


def test_only_the_one_threshold_that_is_meant_is_removed(system: Path) -> None:
    run(system, "0.25", "--fab", "f", "--camera", "c")
    assert run(system, "0.4", "--fab", "FAB7").stdout == "Any defect of fab FAB7 alerts from 0.4 on\n"
    run(system, "--remove", "--fab", "FAB7")
    done = run(system, "--remove", "--fab", "f")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("no threshold is set for any defect of fab f; set are: any defect of fab f camera c\n")
    assert len(shown(system)) == 2


def test_a_value_cannot_be_set_and_removed_at_once(system: Path) -> None:
    done = run(system, "0.5", "--remove")
    assert done.returncode == 2
    assert "--remove" in done.stderr


def test_a_fab_or_class_that_nothing_was_received_of_is_set_with_a_warning(system: Path) -> None:
    done = run(system, "0.3", "--fab", "fabl", "--class", "Scracth")
    assert (done.returncode, done.stdout) == (0, "Scracth of fab fabl alerts from 0.3 on\n")
    assert done.stderr == (
        "nothing was received of fab fabl yet\nno model has predicted Scracth yet, and nobody reviewed a wafer so\n"
    )
    with Records(f"sqlite:///{system / 'records.db'}") as records:
        records.store_shots([shot(fab="fabl", imgid="a")])
        records.add_review("fabl", "cam1", "a", label="Scracth", reviewer="lee")
    assert run(system, "0.3", "--fab", "fabl", "--class", "Scracth").stderr == ""


def test_a_name_commands_no_terminal(system: Path) -> None:
    with Records(f"sqlite:///{system / 'records.db'}") as records:
        records.set_threshold(0.7, label="\x1b[2J[red]Loc\n\u202e")

    assert printed(system).splitlines()[1] == "\\x1b[2J[red]Loc\\n\\u202e of all cameras alerts from 0.7 on"


def test_without_records_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"no records in {tmp_path}")
