"""The one command, `fabwafer`. Each part brings its own subcommands through the entry points `fabwafer.commands`."""

import sys
from importlib.metadata import EntryPoint, entry_points

import typer

from fabwafer import __version__
from fabwafer.errors import FabwaferError

COMMANDS_GROUP = "fabwafer.commands"


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def _fabwafer(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Find defect patterns on semiconductor wafers, on the fab's own machines."""


def _add(app: typer.Typer, name: str, part: typer.Typer) -> None:
    """Adds a part's command, or its group of commands where it has several."""
    if len(part.registered_commands) == 1 and part.registered_callback is None:
        callback = part.registered_commands[0].callback
        assert callback is not None  # noqa: S101 - typer registers no command without one
        app.command(name)(callback)
    else:
        app.add_typer(part, name=name)


def _command_line(arguments: list[str], commands: dict[str, EntryPoint]) -> typer.Typer:
    """Builds the command line with the one command that is asked for, or with all of them for the help."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_fabwafer)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    if asked in commands:
        commands = {asked: commands[asked]}
    for name, entry in sorted(commands.items()):
        try:
            _add(app, name, entry.load())
        except ModuleNotFoundError:
            if asked == name:
                raise
            continue  # the help lists what can run here
    return app


def main() -> None:
    """Runs the command line: imports the module of the command that is asked for, and no other."""
    commands = {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}
    try:
        _command_line(sys.argv[1:], commands)(prog_name="fabwafer")
    except FabwaferError as error:
        raise SystemExit(str(error)) from None
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"this command needs the module {missing.name!r}, which is not installed here: "
            "install the part that brings it, for example with pip install 'fabwafer[all]'"
        ) from missing


if __name__ == "__main__":
    main()
