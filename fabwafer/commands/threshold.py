"""`fabwafer threshold`: from which probability on a defect raises an alert."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_records
from fabwafer.commands.options import Data, Json
from fabwafer.commands.text import one_line
from fabwafer.defects import canonical_name

if TYPE_CHECKING:
    from fabwafer.records import Threshold

app = Commands()


@app.command()
def threshold(
    value: Annotated[
        float | None, typer.Argument(min=0, max=1, help="Set this probability; without it, show what is set.")
    ] = None,
    fab: Annotated[str | None, typer.Option(help="Of this fab only.")] = None,
    camera: Annotated[str | None, typer.Option(help="Of this camera only; name its fab as well.")] = None,
    label: Annotated[str | None, typer.Option("--class", help="Of this class only.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or set from which probability on a defect raises an alert.

    The most specific threshold holds: one for a camera before one for a class before one for a fab before the one
    for all. A new one holds for what is recorded from now on.
    """
    from fabwafer.records import DEFAULT_THRESHOLD, Threshold

    label = canonical_name(label) if label else None
    with open_records(data) as records:
        if value is not None:
            records.set_threshold(value, fab=fab, camera=camera, label=label)
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


def _as_json(one: "Threshold") -> str:
    line = {"fab": one.fab, "camera": one.camera, "class": one.label, "threshold": one.value}
    return json.dumps(line, separators=(",", ":"))


def _sentence(one: "Threshold") -> str:
    where = " ".join(f"{name} {chosen}" for name, chosen in (("fab", one.fab), ("camera", one.camera)) if chosen)
    return one_line(f"{one.label or 'Any defect'} of {where or 'all cameras'} alerts from {one.value:g} on")
