"""`fabwafer drawing`: what the colours of a camera's drawings mean."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_records
from fabwafer.commands.options import Data, Json
from fabwafer.commands.text import one_line
from fabwafer.errors import FabwaferError

if TYPE_CHECKING:
    from fabwafer.records import Drawing

app = Commands()

_COLOUR = "As '#rrggbb'; may be given several times."


class DrawingRefusedError(FabwaferError):
    """A setting that cannot be made. The text says what was expected."""


@app.command()
def drawing(
    *,
    fab: Annotated[str | None, typer.Option(help="Of this fab; set without a camera: of all its cameras.")] = None,
    camera: Annotated[str | None, typer.Option(help="Of this camera only; name its fab as well.")] = None,
    outside: Annotated[list[str] | None, typer.Option(help=f"Colour outside the wafer. {_COLOUR}")] = None,
    passed: Annotated[list[str] | None, typer.Option(help=f"Colour of passed dies. {_COLOUR}")] = None,
    failed: Annotated[list[str] | None, typer.Option(help=f"Colour of failed dies. {_COLOUR}")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the setting.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or set what the colours of drawings mean; without colours, show what is set.

    With the passed colour alone all other dies are failed, with the failed one alone all others passed. The setting of
    a camera holds before that of its fab, and the field `colours` of an image's message before both. It holds for
    images that are classified a second from now on.
    """
    from fabwafer.maps.stated_colours import StatedColours
    from fabwafer.records import Drawing

    given = {"outside": outside or (), "passed": passed or (), "failed": failed or ()}
    with open_records(data) as records:
        if remove or any(given.values()):
            if fab is None:
                raise DrawingRefusedError("expected a fab, and perhaps a camera of it, got neither")
            if remove and any(given.values()):
                raise DrawingRefusedError("expected either colours or --remove, got both")
        if remove and fab is not None:
            if not records.remove_drawing(fab, camera):
                raise DrawingRefusedError(f"expected a setting for {_place(fab, camera)}, there is none")
            return
        if fab is not None and any(given.values()):
            chosen = [Drawing(fab, camera, StatedColours.read(given))]
            records.set_drawing(chosen[0])
        else:
            chosen = [one for one in records.drawings() if fab in (None, one.fab) and camera in (None, one.camera)]
    for one in chosen:
        print(_as_json(one) if as_json else _sentence(one))
    if not chosen and not as_json:
        print("No colours are set: drawings are read by the colours that are known")


def _as_json(one: "Drawing") -> str:
    colours = one.colours.model_dump(exclude_defaults=True)
    return json.dumps({"fab": one.fab, "camera": one.camera, "colours": colours}, separators=(",", ":"))


def _sentence(one: "Drawing") -> str:
    colours = one.colours.model_dump(exclude_defaults=True)
    means = "; ".join(f"{meaning} {', '.join(several)}" for meaning, several in colours.items())
    return one_line(f"{_place(one.fab, one.camera)}: {means}")


def _place(fab: str, camera: str | None) -> str:
    return one_line(f"camera {camera} of fab {fab}" if camera else f"fab {fab}")
