"""`fabwafer migrate`: brings the records' tables up to this version."""

import asyncio
import sys
from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Data
from fabwafer.commands.system import address

app = Commands()


@app.command()
async def migrate(
    database_url: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the records; default: those of the system.")
    ] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a database that does not answer yet.")] = False,
    data: Data = None,
) -> None:
    """Bring the tables of the records up to this version; tables that are up to date stay as they are."""
    from fabwafer.records import RecordsUnavailableError
    from fabwafer.records import migrate as migrate_records
    from fabwafer.service.backoff import Backoff

    url = database_url or address("database_url", data)
    backoff = Backoff()
    told = ""
    while True:
        try:
            await asyncio.to_thread(migrate_records, url)
        except RecordsUnavailableError as error:
            if not wait:
                raise
            if str(error) != told:
                print(f"waiting: {error}", file=sys.stderr)
            told = str(error)
            await backoff.wait()
        else:
            return
