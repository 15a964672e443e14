"""The one command, `fabwafer`. Each part brings its own subcommands through the entry points `fabwafer.commands`."""

import sys
from importlib.metadata import EntryPoint, entry_points

import click
import typer
from typer.core import TyperGroup

from fabwafer import __version__

COMMANDS_GROUP = "fabwafer.commands"


def _commands() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}


def _load(entry: EntryPoint) -> click.Command:
    app = entry.load()
    command: click.Command = typer.main.get_command(app)
    command.name = entry.name
    return command


class PartCommands(TyperGroup):
    """Imports a command's module only when that command is asked for, so that every command starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands of all parts by name."""
        return sorted(_commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads one command; None when there is no such command, or its part is not installed here."""
        entry = _commands().get(cmd_name)
        if entry is None:
            return None
        try:
            return _load(entry)
        except ModuleNotFoundError as missing:
            if ctx.resilient_parsing or not ctx.protected_args:  # the help lists what can run here
                return None
            raise click.ClickException(
                f"`fabwafer {cmd_name}` needs the module {missing.name!r}, which is not installed here; "
                "install the part that brings it, for example: pip install 'fabwafer[all]'"
            ) from missing


app = typer.Typer(cls=PartCommands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _fabwafer(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    """Find defect patterns on semiconductor wafers, on the fab's own machines."""
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command line."""
    app(prog_name="fabwafer")


if __name__ == "__main__":
    sys.exit(main())
