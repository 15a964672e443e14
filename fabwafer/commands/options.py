"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="The system's data directory; else $FABWAFER_DATA, else ~/.local/share/fabwafer. In a cluster the "
        "addresses come from the environment.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, one object a line, and nothing else.")]
StoreAddress = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="The model store, a folder or s3://BUCKET/PREFIX; else $FABWAFER_MODEL_STORE, else model-store in the "
        "data directory.",
    ),
]
