"""Whatever comes from outside, a terminal obeys nothing of it."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
from rich.table import Table

from fabwafer.cli import COMMANDS_GROUP
from fabwafer.commands.app import Commands
from fabwafer.commands.text import console, one_line, printable

HOSTILE = "Loc\x1b[2J\x1b]0;title\x07\r\x9b31m\u202e"
ESCAPED = "Loc\\x1b[2J\\x1b]0;title\\x07\\r\\x9b31m\\u202e"


def printed_in_a_table(text: str) -> None:
    table = Table("class")
    table.add_row(text)
    console(width=200).print(table)


def ended(text: str) -> None:
    raise SystemExit(text)


WAYS: dict[str, Callable[[str], object]] = {
    "print": print,
    "print on stderr": lambda text: print(text, file=sys.stderr),
    "typer.echo": typer.echo,
    "typer.echo on stderr": lambda text: typer.echo(text, err=True),
    "writelines": lambda text: sys.stdout.writelines([text]),
    "console": lambda text: console(width=200, markup=False).print(text),
    "console on stderr": lambda text: console(stderr=True, width=200, markup=False).print(text),
    "console on a terminal": lambda text: console(force_terminal=True, width=200, markup=False, highlight=False).print(
        text
    ),
    "table": lambda text: printed_in_a_table(text.replace("[", "(")),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_command_prints_nothing_that_a_terminal_obeys(
    way: Callable[[str], object], capsys: pytest.CaptureFixture[str]
) -> None:
    app = Commands()

    @app.command()
    def show() -> None:
        way(HOSTILE)

    app(["show"] if len(app.registered_commands) > 1 else [], standalone_mode=False)
    shown = capsys.readouterr()
    both = shown.out + shown.err
    assert "Loc" in both
    assert "31m\\u202e" in both  # what else is escaped or left out differs
    assert all(char.isprintable() or char == "\n" for char in both)


async def test_the_sentence_that_a_command_ends_with_is_escaped() -> None:
    app = Commands()

    @app.command()
    def end() -> None:
        ended(HOSTILE)

    with pytest.raises(SystemExit) as ending:
        app([], standalone_mode=False)
    assert ending.value.code == ESCAPED


def test_styles_of_a_console_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    console(force_terminal=True, color_system="standard").print("[red]text[/red]")
    assert capsys.readouterr().out == "\x1b[31mtext\x1b[0m\n"


def test_json_stays_json_and_lines_stay_lines() -> None:
    document = json.dumps({"text": HOSTILE + "\x7f\n"})
    assert json.loads(printable(document)) == {"text": HOSTILE + "\x7f\n"}
    assert printable("one\ntwo") == "one\ntwo"
    assert one_line("one\ntwo") == "one\\ntwo"


def test_every_command_is_of_the_class_that_escapes_and_no_other_console_is_made() -> None:
    for entry in entry_points(group=COMMANDS_GROUP):
        assert isinstance(entry.load(), Commands), entry.name
    root = Path(__file__).parents[2]
    for file in root.glob("*/*/commands/*.py"):
        assert "Console(" not in file.read_text(), f"{file}: use console() of fabwafer.commands.text"
