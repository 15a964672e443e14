"""`fabwafer streams`: makes the streams on the bus, or brings them up to its settings."""

from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Data

app = Commands()


@app.command()
async def streams(
    data: Data = None,
    room: Annotated[
        int | None,
        typer.Option(min=0, help="Bytes that streams and records may take: limits that are not set are made to fit."),
    ] = None,
) -> None:
    """Make the streams on the bus and their consumers, or update them; nothing to do is fine.

    Waits for a bus that is away or still elects its leaders. The other processes wait for the streams. Settings come
    from the environment: FABWAFER_NATS_URL, FABWAFER_REPLICAS and so on.
    """
    from fabwafer.commands.system import address
    from fabwafer.service.disk import readable
    from fabwafer.service.logs import configure
    from fabwafer_bridge.connection import connect
    from fabwafer_bridge.settings import StreamSettings
    from fabwafer_bridge.stream_limits import limits
    from fabwafer_bridge.streams import make_streams

    settings = StreamSettings.read(nats_url=address("nats_url", data) if data else None)
    fitting = limits(settings, room)
    configure()
    client = await connect(settings.bus_url, name="fabwafer-streams")
    try:
        await make_streams(
            client.jetstream(timeout=5),
            replicas=settings.replicas,
            mqtt_max_bytes=fitting.mqtt,
            max_bytes=fitting.stream,
        )
    finally:
        await client.close()
    if room is not None:
        print(
            f"the streams may hold {readable(fitting.total)}, images and predictions on their way; streams and records "
            f"have {readable(room)} on this disk"
        )
