"""`fabwafer data`: labelled wafer maps from one form to another, and what is in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer_training.commands.source import HELP

if TYPE_CHECKING:
    from fabwafer_training.dataset import Dataset

app = Commands(no_args_is_help=True, help="Convert labelled wafer maps, and show what is in them.")

_NAMED: Final = 10
"""Maps that are named of those that are left out; --json names all."""

_Source = Annotated[str, typer.Argument(help=HELP)]


@app.command()
def convert(
    source: _Source, out: Annotated[Path, typer.Argument(help="A file that ends in .npz, or a folder for pictures.")]
) -> None:
    """Write labelled maps in another form."""
    from fabwafer_training.dataset import DataError
    from fabwafer_training.readers.folder import write_folder
    from fabwafer_training.readers.npz import write_npz

    data = _read(source)
    for sentence in data.unread:
        typer.echo(sentence, err=True)
    if out.suffix and out.suffix != ".npz":
        typer.echo(f"expected a file that ends in .npz or a folder, got {out}", err=True)
        raise typer.Exit(1)
    try:
        if out.suffix:
            write_npz(out, data)
        else:
            write_folder(out, data)
    except (DataError, OSError) as error:
        typer.echo(str(error) if isinstance(error, DataError) else f"{out}: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"wrote {len(data)} maps to {out}", err=True)
    if not out.suffix and len(set(data.groups.tolist())) < len(data):
        typer.echo("A folder keeps no lots: a split of these pictures may cut through one.", err=True)


@app.command()
def show(
    source: _Source, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show how many maps of each class there are, what was left out and why, and which training would leave out."""
    import json

    from rich.markup import escape
    from rich.table import Table

    from fabwafer.commands.text import console
    from fabwafer_training.splits import clean

    data = _read(source)
    _, left_out = clean(data)
    if as_json:
        print(
            json.dumps(
                {
                    "name": data.name,
                    "maps": len(data),
                    "groups": len(set(data.groups.tolist())),
                    "classes": data.counts(),
                    "left_out": data.unread,
                    "conflicting": [data.names[row] for row in left_out.conflicting],
                    "repeated": [data.names[row] for row in left_out.repeated],
                    "sha256": data.digest(),
                }
            )
        )
        return
    title = f"{data.name}: {len(data)} maps in {len(set(data.groups.tolist()))} groups"
    table = Table(title=escape(title))
    table.add_column("class")
    table.add_column("maps", justify="right")
    for name, count in data.counts().items():
        table.add_row(escape(name), str(count))
    terminal = console()
    terminal.print(table)
    for sentence in data.unread:
        terminal.print(escape(sentence))
    conflicting, repeated = (_named(data, rows.tolist()) for rows in (left_out.conflicting, left_out.repeated))
    terminal.print(
        f"Training leaves out {len(left_out.conflicting)} maps with conflicting labels{escape(conflicting)} "
        f"and {len(left_out.repeated)} exact duplicates{escape(repeated)}."
    )


def _named(data: "Dataset", rows: list[int]) -> str:
    names = [data.names[row] for row in rows[:_NAMED]] + (["..."] if len(rows) > _NAMED else [])
    return f" ({', '.join(names)})" if names else ""


def _read(source: str) -> "Dataset":
    from fabwafer_training.dataset import DataError
    from fabwafer_training.readers import read

    try:
        return read(source)
    except DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
