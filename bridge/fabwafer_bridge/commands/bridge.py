"""`fabwafer bridge`: runs the bridge."""

import asyncio
import signal
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def bridge(
    only: Annotated[
        str | None, typer.Option(help="Consumers of this process, by commas: intake,classify,shadow,record,alert.")
    ] = None,
) -> None:
    """Carry messages from the bus to the model server, the records and the alerts.

    Settings come from the environment, as FABWAFER_NATS_URL and so on.
    """
    import uvloop

    from fabwafer.service.logs import configure
    from fabwafer_bridge.service import Bridge
    from fabwafer_bridge.settings import ROLES, BridgeSettings

    roles = tuple(only.split(",")) if only else ROLES
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise typer.BadParameter(f"expected some of {', '.join(ROLES)}, got {unknown[0]!r}", param_hint="--only")
    configure()

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await Bridge(BridgeSettings(), [role for role in ROLES if role in roles]).run(stopping)

    uvloop.run(run())
