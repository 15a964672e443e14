"""The command line starts fast, from any folder, and tells what is missing."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from fabwafer import __version__
from fabwafer.cli import COMMANDS_GROUP

COMMANDS = sorted(entry.name for entry in entry_points(group=COMMANDS_GROUP))

HEAVY = ("torch", "onnxruntime", "kserve", "sklearn", "matplotlib")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_every_command_is_in_the_help(tmp_path: Path) -> None:
    shown = run("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert [name for name in COMMANDS if name not in shown.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_starts_without_what_is_heavy(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['fabwafer', sys.argv[1], '--help']\n"
        "from fabwafer.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "LOADED [] 0"
    assert "Usage" in shown.stdout


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout.strip() == __version__


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    refused = run("claffisy", cwd=tmp_path)
    assert refused.returncode == 2
    assert "claffisy" in refused.stderr


def test_a_command_whose_part_is_not_installed_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['typer.missing'] = None\n"
        "import importlib.metadata as metadata, fabwafer.cli as cli\n"
        "entry = metadata.EntryPoint('gone', 'typer.missing:app', 'fabwafer.commands')\n"
        "cli.entry_points = lambda group: [entry]\n"
        "sys.argv = ['fabwafer', 'gone']\n"
        "cli.main()"
    )
    refused = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "pip install" in refused.stderr
    assert "Traceback" not in refused.stderr


def with_a_command(body: str) -> str:
    """A program whose command line has the one command `try`."""
    return (
        "import sys, types, typer, fabwafer.cli as cli\n"
        "from fabwafer.errors import FabwaferError\n"
        "class Refused(FabwaferError): exit_code = 3\n"
        "module = sys.modules['tried'] = types.ModuleType('tried')\n"
        "module.app = typer.Typer()\n"
        "@module.app.command()\n"
        f"def run() -> None: {body}\n"
        "import importlib.metadata as metadata\n"
        "cli.entry_points = lambda group: [metadata.EntryPoint('try', 'tried:app', group)]\n"
        "sys.argv = ['fabwafer', 'try']\n"
        "cli.main()"
    )


@pytest.mark.parametrize(("error", "code"), [("FabwaferError", 1), ("Refused", 3)])
def test_an_error_for_a_person_is_its_sentence_and_its_exit_code(error: str, code: int, tmp_path: Path) -> None:
    program = with_a_command(f"raise {error}('expected a, got b')")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "expected a, got b\n")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_closes_the_pipe_gets_no_traceback(lines: int, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = with_a_command(f"print('line\\n' * {lines})")
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", [("records",), ("dead-letters",), ("send", __file__)])
def test_without_a_system_a_command_says_how_to_start_one(command: tuple[str, ...], tmp_path: Path) -> None:
    refused = run(*command, "--data", str(tmp_path / "none"), cwd=tmp_path)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "fabwafer" in refused.stderr
    assert refused.stdout == ""
