"""`fabwafer archive`: the archive that TorchServe loads."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Json

app = Commands()


@app.command()
def archive(
    *,
    model: Annotated[Path | None, typer.Option(help="The model's folder; without it, the one that is shipped.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to put wafer.mar into.")] = Path(),
    as_json: Json = False,
) -> None:
    """Build wafer.mar, the archive that TorchServe loads, from a model's folder."""
    from fabwafer.models.archive import ARCHIVE_NAME, build
    from fabwafer.models.shipped import default_model

    try:
        built = build(model or default_model(), out / ARCHIVE_NAME)
    except OSError as error:
        raise SystemExit(f"could not write the archive into {out}: {error.strerror}") from None
    if as_json:
        print(json.dumps(asdict(built), default=str))
    else:
        print(f"{built.path}: model {built.version}, digest {built.digest}")
