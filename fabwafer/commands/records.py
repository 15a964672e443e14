"""`fabwafer records`: what was received about each wafer, its predictions and reviews."""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_records
from fabwafer.commands.options import Data, Json
from fabwafer.commands.text import console, one_line

if TYPE_CHECKING:
    from rich.text import Text

    from fabwafer.records import Filter, Records, WaferRecord, WaferRow

app = Commands()

_FORMATS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
_SHOWN: Final = 20


@app.command()
def records(
    *,
    data: Data = None,
    fab: Annotated[str | None, typer.Option(help="Only wafers of this fab.")] = None,
    camera: Annotated[str | None, typer.Option(help="Only wafers of this camera.")] = None,
    imgid: Annotated[str | None, typer.Option(help="Only the wafer of this image.")] = None,
    lot: Annotated[str | None, typer.Option(help="Only wafers of this lot.")] = None,
    label: Annotated[str | None, typer.Option("--class", help="Only wafers whose current prediction it is.")] = None,
    alert: Annotated[bool, typer.Option("--alert", help="Only wafers that raised an alert.")] = False,
    needs_review: Annotated[
        bool, typer.Option("--needs-review", help="Only wafers that a person should look at, and nobody has.")
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option(formats=_FORMATS, help="Only wafers of which something was received at this local time or later."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="Only wafers received last before this local time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was received about each wafer, its predictions and reviews: the newest, or all as JSON."""
    from fabwafer.defects import canonical_name
    from fabwafer.records import Filter

    wanted = Filter(
        fab=fab,
        camera=camera,
        imgid=imgid,
        lot=lot,
        label=canonical_name(label) if label else None,
        alert=alert or None,
        needs_review=needs_review or None,
        since=_milliseconds(since),
        until=_milliseconds(until),
    )
    with open_records(data) as opened:
        if as_json:
            for record in opened.wafers(wanted):
                print(json.dumps(_as_json(record), separators=(",", ":")))
        else:
            _print_table(opened, wanted)


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.astimezone().timestamp() * 1000)


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
                "source": prediction.source,
                "model": prediction.model,
                "timestamp": prediction.timestamp,
                "prediction": prediction.prediction,
                "probability": prediction.probability,
                "wafer": prediction.wafer,
                "alert": prediction.alert,
                **({"review_reason": prediction.review_reason} if prediction.review_reason else {}),
                **({"review_detail": prediction.review_detail} if prediction.review_detail else {}),
                **({"shadow": True} if prediction.shadow else {}),
            }
            for prediction in record.predictions
        ],
    }
    if record.map:
        line["map"] = record.map.model_dump()
    if record.reviews:
        line["reviews"] = [
            {"label": review.label, "reviewer": review.reviewer, "time": review.time, "note": review.note}
            for review in record.reviews
        ]
    return line


def _print_table(opened: "Records", wanted: "Filter") -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    # Narrow but for the wafer: a terminal of 80 columns shows its name in one or two lines.
    headings = ("received", "wafer", "prediction", "prob.", "by", "yield", "alert", "review")
    table = Table(*headings, box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = column.header != "wafer"
    table.columns[1].overflow = "fold"
    page = opened.page(wanted, size=_SHOWN)
    for row in page.rows:
        table.add_row(*_cells(row))
    terminal = console()
    terminal.print(table)
    if page.cursor is not None:
        more = opened.count(wanted) - len(page.rows)
        terminal.print(f"and {more} more, received earlier; --json prints all")


def _cells(row: "WaferRow") -> "list[Text]":
    """Return the cells of a row; as `Text`, in which nothing from outside is taken for markup."""
    from rich.text import Text

    dies = row.map.passed + row.map.failed if row.map else 0
    cells = [
        datetime.fromtimestamp(row.received / 1000).astimezone().strftime("%m-%d %H:%M:%S"),
        f"{row.fab}/{row.camera}/{row.imgid}",
        row.label or "waiting",
        "" if row.probability is None else f"{row.probability:.2f}",
        (row.model if row.source == "cluster" else row.source) or "",
        f"{row.map.passed / dies:.1%}" if row.map and dies else "",
        "yes" if row.alert else "",
        row.reviewed or ((row.review_reason or "needed") if row.review else ""),
    ]
    return [Text(one_line(cell)) for cell in cells]
