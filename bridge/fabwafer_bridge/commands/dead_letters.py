"""`fabwafer dead-letters`: lists messages that can never succeed, and sends them again."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_bus
from fabwafer.commands.options import Data, Json
from fabwafer.commands.text import console
from fabwafer.errors import FabwaferError

if TYPE_CHECKING:
    from nats.js import JetStreamContext

app = Commands(invoke_without_command=True)


class UnknownDeadLetterError(FabwaferError):
    """No dead letter has one of the ids given. The text names them."""


@app.callback()
async def dead_letters(context: typer.Context, data: Data = None, as_json: Json = False) -> None:
    """List the messages that were refused for good, oldest first, with the reason."""
    context.obj = (data, as_json)
    if context.invoked_subcommand is None:
        async with open_bus(data) as bus:
            await _list(bus.jetstream(), as_json)


@app.command()
async def replay(
    context: typer.Context,
    ids: Annotated[list[int] | None, typer.Argument(min=1, help="Ids from the list; default: all.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Send dead letters again, after the cause is mended."""
    outer_data, outer_json = context.obj
    async with open_bus(data or outer_data) as bus:
        await _replay(bus.jetstream(), ids, as_json or outer_json)


async def _list(js: "JetStreamContext", as_json: bool) -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from fabwafer_bridge.dead_letters import listed

    table = Table("id", "time", "subject", "reason", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap, column.overflow = column.header in ("id", "time"), "fold"
    async for letter in listed(js):
        if as_json:
            print(json.dumps(asdict(letter)))
        else:
            when = letter.time[:19].replace("T", " ")
            reason = f"{letter.reason} ({letter.size} bytes)"
            table.add_row(str(letter.id), when, escape(letter.subject), escape(reason))
    if not as_json:
        console().print(table if table.row_count else "No dead letters.")


async def _replay(js: "JetStreamContext", ids: list[int] | None, as_json: bool) -> None:
    from nats.js.errors import NotFoundError

    from fabwafer_bridge.dead_letters import listed
    from fabwafer_bridge.dead_letters import replay as replay_one

    # Listed first: what is refused once more while this runs becomes a new dead letter, which is not for this run.
    wanted = ids if ids is not None else [letter.id async for letter in listed(js)]
    missing = []
    for number in wanted:
        try:
            origin = await replay_one(js, number)
        except NotFoundError:
            missing.append(number)
            continue
        print(json.dumps({"id": number, "sent_on": origin}) if as_json else f"{number} sent again on {origin}")
    if not wanted and not as_json:
        print("No dead letters.")
    if missing:
        raise UnknownDeadLetterError(f"no dead letter has the id {', '.join(map(str, missing))}")
