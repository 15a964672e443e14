"""`fabwafer bridge`: runs the bridge."""

from typing import Annotated

import typer

from fabwafer.commands.app import Commands

app = Commands()


@app.command()
def bridge(
    only: Annotated[
        str | None, typer.Option(help="Roles of this process, by commas: intake,classify,shadow,record,alert.")
    ] = None,
) -> None:
    """Carry messages from the bus to the model server, the records and the alerts.

    Settings come from the environment, as FABWAFER_NATS_URL and so on.
    """
    import uvloop

    from fabwafer.service.logs import configure
    from fabwafer.service.process import until_signal
    from fabwafer_bridge.roles import ROLES
    from fabwafer_bridge.service import Bridge
    from fabwafer_bridge.settings import BridgeSettings

    roles = only.split(",") if only else list(ROLES)
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise typer.BadParameter(f"expected some of {', '.join(ROLES)}, got {unknown[0]!r}", param_hint="--only")
    settings = BridgeSettings.read()
    configure()
    uvloop.run(until_signal(Bridge(settings, roles).run))
