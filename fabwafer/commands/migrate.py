"""`fabwafer migrate`: brings the records' tables up to this version."""

from pathlib import Path
from typing import Annotated

import typer

from fabwafer.commands.system import SystemNotFoundError, address

app = typer.Typer()


@app.command()
def migrate(
    database_url: Annotated[str | None, typer.Option(help="SQLAlchemy URL of the records.")] = None,
    data: Annotated[Path | None, typer.Option(help="The system's data directory.")] = None,
) -> None:
    """Bring the tables of the records up to this version; nothing to do is fine."""
    from fabwafer.records import RecordsUnavailableError, SchemaError
    from fabwafer.records import migrate as migrate_records

    try:
        migrate_records(database_url or address("database_url", data))
    except (SystemNotFoundError, SchemaError, RecordsUnavailableError) as error:
        raise SystemExit(str(error)) from None
