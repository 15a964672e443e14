"""`fabwafer migrate`: brings the records' tables up to this version."""

from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Data
from fabwafer.commands.system import address

app = Commands()


@app.command()
def migrate(
    database_url: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the records; default: those of the system.")
    ] = None,
    data: Data = None,
) -> None:
    """Bring the tables of the records up to this version; tables that are up to date stay as they are."""
    from fabwafer.records import migrate as migrate_records

    migrate_records(database_url or address("database_url", data))
