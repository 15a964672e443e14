"""`fabwafer review`: what a person sees on a wafer."""

import getpass
import json
from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_records
from fabwafer.commands.options import Data, Json
from fabwafer.commands.text import one_line
from fabwafer.errors import FabwaferError

app = Commands()


class UnknownClassError(FabwaferError):
    """A class that nothing knows. The text names the known ones."""


@app.command()
def review(
    fab: Annotated[str, typer.Argument(help="The fab of the wafer.")],
    camera: Annotated[str, typer.Argument(help="The camera that sent it.")],
    imgid: Annotated[str, typer.Argument(help="The image, as fabwafer records shows it.")],
    label: Annotated[str, typer.Argument(metavar="CLASS", help="What the wafer shows; not-a-wafer is one as well.")],
    *,
    note: Annotated[str | None, typer.Option(help="Anything else about it.")] = None,
    reviewer: Annotated[str | None, typer.Option(help="Who says so; by default the user's name.")] = None,
    new_class: Annotated[
        bool, typer.Option("--new-class", help="Take a class that no model predicted and nobody named before.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Store what a person sees on a wafer. The last review of a wafer counts; retraining learns from it."""
    from fabwafer.defects import NOT_A_WAFER, SHIPPED_CLASSES, canonical_name

    label, reviewer = canonical_name(label), reviewer or getpass.getuser()
    with open_records(data) as records:
        if not new_class:
            known = sorted({*SHIPPED_CLASSES, NOT_A_WAFER} | records.labels())
            if label not in known:
                raise UnknownClassError(
                    f"expected one of the classes {', '.join(known)}, got {label!r}; --new-class takes a new one"
                )
        records.add_review(fab, camera, imgid, label=label, reviewer=reviewer, note=note)
        wafer = records.wafer(fab, camera, imgid)
    if as_json:
        line = {"fab": fab, "camera": camera, "imgid": imgid, "label": label, "reviewer": reviewer, "note": note}
        print(json.dumps(line, separators=(",", ":")))
        return
    current = wafer.current if wafer else None
    before = f"; the prediction was {current.prediction} ({current.probability:.2f})" if current else ""
    print(one_line(f"{fab}/{camera}/{imgid}: {label} by {reviewer}{before}"))
