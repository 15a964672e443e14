"""`fabwafer threshold`: from which probability on a defect raises an alert."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_records
from fabwafer.commands.options import Data, Json
from fabwafer.commands.text import one_line
from fabwafer.defects import canonical_name

if TYPE_CHECKING:
    from fabwafer.records import Records, Threshold

app = Commands()


@app.command()
def threshold(
    value: Annotated[
        float | None, typer.Argument(min=0, max=1, help="Set this probability; without it, show what is set.")
    ] = None,
    fab: Annotated[str | None, typer.Option(help="Of this fab only.")] = None,
    camera: Annotated[str | None, typer.Option(help="Of this camera only; name its fab as well.")] = None,
    label: Annotated[str | None, typer.Option("--class", help="Of this class only.")] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the threshold of exactly this fab, camera and class.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show, set or remove from which probability on a defect raises an alert.

    The most specific threshold holds: one for a camera before one for a class before one for a fab before the one
    for all. A new one holds for what is recorded from now on.
    """
    from fabwafer.records import DEFAULT_THRESHOLD, Threshold

    if remove and value is not None:
        raise typer.BadParameter("a value is set, or --remove removes one: expected one of them")
    label = canonical_name(label) if label else None
    with open_records(data) as records:
        if remove:
            removed = records.remove_threshold(fab, camera, label)
            print(_as_json(removed) if as_json else f"removed: {_sentence(removed)}")
            return
        if value is not None:
            records.set_threshold(value, fab=fab, camera=camera, label=label)
            _warn(records, fab, camera, label)
            chosen = [Threshold(fab, camera, label, value)]
        else:
            found = records.thresholds()
            if not any((one.fab, one.camera, one.label) == (None, None, None) for one in found):
                found = [Threshold(None, None, None, DEFAULT_THRESHOLD), *found]
            chosen = [
                one
                for one in found
                if fab in (None, one.fab) and camera in (None, one.camera) and label in (None, one.label)
            ]
    for one in chosen:
        print(_as_json(one) if as_json else _sentence(one))


def _warn(records: "Records", fab: str | None, camera: str | None, label: str | None) -> None:
    """Say on stderr what a threshold that was set does not hold for yet: it may be a typing error."""
    from fabwafer.defects import SHIPPED_CLASSES
    from fabwafer.records import Filter

    if fab and not records.count(Filter(fab=fab)):
        print(one_line(f"nothing was received of fab {fab} yet"), file=sys.stderr)
    elif camera and not records.count(Filter(fab=fab, camera=camera)):
        print(one_line(f"nothing was received of camera {camera} of fab {fab} yet"), file=sys.stderr)
    if label and label not in SHIPPED_CLASSES and label not in records.labels():
        print(one_line(f"no model has predicted {label} yet, and nobody reviewed a wafer so"), file=sys.stderr)


def _as_json(one: "Threshold") -> str:
    line = {"fab": one.fab, "camera": one.camera, "class": one.label, "threshold": one.value}
    return json.dumps(line, separators=(",", ":"))


def _sentence(one: "Threshold") -> str:
    from fabwafer.records.thresholds import describe

    what = describe(one.fab, one.camera, one.label)
    return one_line(f"{what if one.label else what[0].upper() + what[1:]} alerts from {one.value:g} on")
