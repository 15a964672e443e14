"""`fabwafer archive`: builds the archive that TorchServe loads."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def archive(
    model: Annotated[Path | None, typer.Option(help="The model's folder; without it, the one that is shipped.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to put wafer.mar into.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: path, version, digest.")] = False,
) -> None:
    """Build wafer.mar, the archive that TorchServe loads, from a model's folder."""
    from fabwafer.models.card import ModelRefusedError, default_model
    from fabwafer_handlers.archive import build

    try:
        built = build(model or default_model(), out)
    except ModelRefusedError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(f"could not write the archive into {out}: {error.strerror}") from None
    if as_json:
        print(json.dumps(asdict(built), default=str))
    else:
        print(f"{built.path}: model {built.version}, digest {built.digest}")
