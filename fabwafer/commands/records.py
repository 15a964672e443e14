"""`fabwafer records`: what was received about each wafer, and what was said of it."""

import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from fabwafer.records import Filter, Records, WaferRecord

app = typer.Typer()

_SHOWN: Final = 20


@app.command()
def records(
    *,
    data: Annotated[Path | None, typer.Option(help="Data directory of the system.")] = None,
    fab: Annotated[str | None, typer.Option(help="Only wafers of this fab.")] = None,
    camera: Annotated[str | None, typer.Option(help="Only wafers of this camera.")] = None,
    imgid: Annotated[str | None, typer.Option(help="Only the wafer of this image.")] = None,
    lot: Annotated[str | None, typer.Option(help="Only wafers of this lot.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every record, as JSON, one a line.")] = False,
) -> None:
    """Show what was received about each wafer, and what was said of it."""
    from fabwafer.commands.system import SystemNotFoundError, address
    from fabwafer.records import Filter, Records, RecordsUnavailableError, SchemaError

    wanted = Filter(fab=fab, camera=camera, imgid=imgid, lot=lot)
    try:
        with Records(address("database_url", data)) as found:
            found.check()
            if as_json:
                for record in found.wafers(wanted):
                    print(json.dumps(_as_json(record), separators=(",", ":")))
            else:
                _print_table(found, wanted)
    except (SystemNotFoundError, SchemaError, RecordsUnavailableError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None


def _as_json(record: "WaferRecord") -> dict[str, Any]:
    line: dict[str, Any] = {
        "fab": record.fab,
        "camera": record.camera,
        "imgid": record.imgid,
        "timestamp": record.timestamp,
        **record.context,
        "images": len(record.shots),
        "predictions": [
            {
                "source": said.source,
                "model": said.model,
                "timestamp": said.timestamp,
                "prediction": said.prediction,
                "probability": said.probability,
                "wafer": said.wafer,
                "alert": said.alert,
                **({"shadow": True} if said.shadow else {}),
            }
            for said in record.predictions
        ],
    }
    if record.map:
        line["map"] = record.map.model_dump()
    if record.review:
        line["review"] = {"label": record.review.label, "reviewer": record.review.reviewer, "time": record.review.time}
    return line


def _print_table(found: "Records", wanted: "Filter") -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table("received", "wafer", "prediction", "prob.", "by", "yield", "alert", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = column.header != "wafer"
    table.columns[1].overflow = "fold"
    for record in islice(found.wafers(wanted, newest_first=True), _SHOWN):
        table.add_row(*_cells(record))
    console = Console()
    console.print(table)
    more = found.count(wanted) - table.row_count
    if more > 0:
        console.print(f"and {more} more, received earlier; --json prints all")


def _cells(record: "WaferRecord") -> list[str]:
    from datetime import datetime

    received = datetime.fromtimestamp(record.received / 1000).astimezone().strftime("%m-%d %H:%M:%S")
    said, counted = record.current, record.map
    dies = counted.passed + counted.failed if counted else 0
    return [
        received,
        f"{record.fab}/{record.camera}/{record.imgid}",
        said.prediction if said else "waiting",
        f"{said.probability:.2f}" if said else "",
        (said.model if said.source == "cluster" else said.source) if said else "",
        f"{counted.passed / dies:.1%}" if counted and dies else "",
        "yes" if any(one.alert for one in record.predictions) else "",
    ]
