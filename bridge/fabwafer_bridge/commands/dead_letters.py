"""`fabwafer dead-letters`: what was refused for ever, and sending it again."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabwafer.commands.system import SystemNotFoundError, address

if TYPE_CHECKING:
    from nats.js import JetStreamContext

app = typer.Typer(invoke_without_command=True)

Data = Annotated[Path | None, typer.Option(help="The system's data directory.")]


@app.callback()
def dead_letters(
    context: typer.Context,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List what was refused for ever, oldest first, with the reason."""
    context.obj = (data, as_json)
    if context.invoked_subcommand is None:
        _on_bus(data, lambda js: _list(js, as_json))


@app.command()
def replay(
    context: typer.Context,
    ids: Annotated[
        list[int] | None, typer.Argument(min=1, help="Ids from the list; all of them where none is named.")
    ] = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Send dead letters on their way again, after what was wrong is mended."""
    outer_data, outer_json = context.obj
    _on_bus(data or outer_data, lambda js: _replay(js, ids, as_json or outer_json))


async def _list(js: "JetStreamContext", as_json: bool) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
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
            table.add_row(
                str(letter.id), when, escape(letter.subject), escape(f"{letter.reason} ({letter.size} bytes)")
            )
    if not as_json:
        Console().print(table if table.row_count else "No dead letters.")


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
        raise SystemExit(f"no dead letter has the id {', '.join(map(str, missing))}")


def _on_bus(data: Path | None, work: "Callable[[JetStreamContext], Coroutine[Any, Any, None]]") -> None:
    import nats
    from nats.errors import Error as NatsError

    async def run() -> None:
        client = await nats.connect(address("nats_url", data).split(","), allow_reconnect=False, connect_timeout=5)
        try:
            await work(client.jetstream())
        finally:
            await client.close()

    try:
        asyncio.run(run())
    except SystemNotFoundError as error:
        raise SystemExit(str(error)) from None
    except (NatsError, OSError) as error:
        raise SystemExit(f"the bus did not answer: {error!r}") from None
