"""`fabwafer import`: what other systems recorded, into the records."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_records
from fabwafer.commands.options import Data, Json
from fabwafer.commands.text import console
from fabwafer.errors import FabwaferError

if TYPE_CHECKING:
    from fabwafer.imports.tally import Refusal, Tally
    from fabwafer.imports.workshop import CountDies
    from fabwafer.maps.counts import MapCounts
    from fabwafer.messages.bodies import ImageMetadata
    from fabwafer.records import Records

app = Commands(no_args_is_help=True)

_EVERY: Final = 10_000
"""Rows and images from one line of progress to the next."""


class NothingToImportError(FabwaferError):
    """Neither an export nor a folder of images was named."""


@app.callback()
def imports() -> None:
    """Import what other systems recorded."""


@app.command()
def aws(
    exports: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="EXPORT",
            help="A table: the folder of its export to S3 (DynamoDB JSON), or the output of aws dynamodb scan.",
        ),
    ] = None,
    *,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder with the bucket's images, as FAB/CAMERA/IMGID.png."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Import what the AWS wafer workshop recorded: its tables of predictions and of ground truths, and its images.

    Run again it changes nothing. It raises no alerts. What is refused stops nothing; the command exits with 1 then.
    """
    from fabwafer.imports.dynamodb import find_exports, read_export
    from fabwafer.imports.tally import Tally
    from fabwafer.imports.workshop import WorkshopImport

    if not exports and images is None:
        raise NothingToImportError("expected an export of a table, or --images DIR, got neither")
    if images is not None and not images.is_dir():
        raise NothingToImportError(f"--images {images}: no such folder")
    files = [file for named in exports or [] for file in find_exports(named)]
    tally = Tally(_print_refusal if as_json else _ignore)
    with open_records(data) as records:
        importing = WorkshopImport(records, _count_dies(records, now=images is not None), tally, _progress(tally))
        for file in files:
            importing.import_rows(read_export(file))
        if images is not None:
            importing.import_images(images)
    if as_json:
        print(json.dumps(_as_json(tally), separators=(",", ":")))
    else:
        _print_tables(tally)
    if tally.refused:
        raise typer.Exit(1)


def _count_dies(records: "Records", *, now: bool) -> "CountDies":
    """Return what counts dies; it loads NumPy, now or for the first image: a table alone has none."""
    from functools import cache, partial

    @cache
    def loaded() -> "CountDies":
        # Before NumPy is imported: for matrices as small as a map's, BLAS threads only wait for each other.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from fabwafer.imports.die_counts import count_dies
        from fabwafer.records import statement_finder

        return partial(count_dies, set_for=statement_finder(records.drawings()))

    def count(image: "ImageMetadata", data: bytes) -> "MapCounts | None":
        return loaded()(image, data)

    if now:
        loaded()
    return count


def _progress(tally: "Tally") -> Callable[[], None]:
    shown = 0

    def show() -> None:
        nonlocal shown
        if tally.total // _EVERY > shown:
            shown = tally.total // _EVERY
            print(
                f"{tally.total} read: {tally.new.total()} new, {tally.known.total()} there already, "
                f"{tally.refused.total()} refused",
                file=sys.stderr,
            )

    return show


def _ignore(_: "Refusal") -> None:
    """Refusals are shown in a table at the end."""


def _print_refusal(refusal: "Refusal") -> None:
    print(json.dumps({"refused": asdict(refusal)}, separators=(",", ":")))


def _as_json(tally: "Tally") -> dict[str, Any]:
    from fabwafer.imports.tally import KINDS

    return {
        **{
            f"{kind}s": {"new": tally.new[kind], "known": tally.known[kind], "refused": tally.refused_of(kind)}
            for kind in KINDS
        },
        "uncounted": tally.uncounted,
    }


def _print_tables(tally: "Tally") -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from fabwafer.imports.tally import KINDS

    table = Table("", "new", "there already", "refused", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in KINDS:
        counts = (tally.new[kind], tally.known[kind], tally.refused_of(kind))
        if kind != "row" or any(counts):
            table.add_row("other rows" if kind == "row" else f"{kind}s", *map(str, counts))
    terminal = console()
    terminal.print(table)
    if tally.uncounted:
        terminal.print(
            f"On {tally.uncounted} images no dies were counted: they show no wafer map, or one whose colours do not "
            "tell which dies failed."
        )
    if not tally.refused:
        return
    reasons = Table("refused", "reason", "", "the first of them", box=SIMPLE, padding=(0, 1, 0, 0))
    reasons.columns[2].justify = "right"
    reasons.columns[3].overflow = "fold"
    for (kind, code), count in sorted(tally.refused.items()):
        first = tally.example[kind, code]
        reasons.add_row(kind, code, str(count), escape(f"{first.place}: {first.reason}"))
    terminal.print(reasons)
    terminal.print("--json names each that was refused.")
