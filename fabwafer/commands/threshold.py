"""`fabwafer threshold`: from which probability on a defect raises an alert."""

from pathlib import Path
from typing import Annotated

import typer

from fabwafer.commands.system import SystemNotFoundError, address
from fabwafer.defects import canonical_name

app = typer.Typer()


@app.command()
def threshold(
    value: Annotated[float, typer.Argument(help="Probability, 0 to 1.")],
    fab: Annotated[str | None, typer.Option(help="Of this fab only.")] = None,
    camera: Annotated[str | None, typer.Option(help="Of this camera only.")] = None,
    label: Annotated[str | None, typer.Option("--class", help="Of this class only.")] = None,
    data: Annotated[Path | None, typer.Option(help="The system's data directory.")] = None,
) -> None:
    """Set from which probability on a defect raises an alert; it holds for what is recorded from now on."""
    from fabwafer.records import Records, RecordsUnavailableError, SchemaError, ThresholdRefusedError

    try:
        with Records(address("database_url", data)) as records:
            records.check()
            records.set_threshold(value, fab=fab, camera=camera, label=canonical_name(label) if label else None)
    except (SystemNotFoundError, SchemaError, RecordsUnavailableError, ThresholdRefusedError) as error:
        raise SystemExit(str(error)) from None
    whose = " ".join(f"{name} {chosen}" for name, chosen in (("fab", fab), ("camera", camera)) if chosen)
    print(f"{canonical_name(label) if label else 'Any defect'} of {whose or 'all cameras'} alerts from {value:g} on")
