"""The command `fabwafer`. Each part adds its subcommands through the entry points `fabwafer.commands`."""

import os
import sys
from importlib.metadata import EntryPoint, entry_points

import typer

from fabwafer import __version__
from fabwafer.commands.text import printable
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
    """Add a part's command, or its group of commands where it has several."""
    if len(part.registered_commands) == 1 and part.registered_callback is None:
        callback = part.registered_commands[0].callback
        assert callback is not None  # noqa: S101 - typer registers no command without one
        app.command(name)(callback)
    else:
        app.add_typer(part, name=name)


def _command_line(arguments: list[str], commands: dict[str, EntryPoint]) -> typer.Typer:
    """Build the command line with the one command that is asked for, or with all of them for the help."""
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
            continue  # the help lists what can run in this installation
    return app


def main() -> None:
    """Run the command line; of the modules with commands, only that of the command asked for is imported."""
    commands = {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}
    try:
        try:
            _command_line(sys.argv[1:], commands)(prog_name="fabwafer")
        finally:
            sys.stdout.flush()
    except FabwaferError as error:
        print(printable(str(error)), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:  # whoever reads the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        raise SystemExit(1) from None
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"this command needs the module {missing.name!r}, which is not installed here: "
            "install the part that brings it, for example with pip install 'fabwafer[all]'"
        ) from missing


if __name__ == "__main__":
    main()
