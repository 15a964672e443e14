"""`fabwafer device-auth`: runs the device-auth beside a nats-server."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def device_auth(
    users_file: Annotated[Path, typer.Option(help="The file with the device users that the server includes.")],
    log_file: Annotated[Path, typer.Option(help="The server's log.")],
    server_url: Annotated[
        str,
        typer.Option(
            envvar="FABWAFER_NATS_SYSTEM_URL",
            help="nats://USER:PASSWORD@HOST:PORT of the server, with a user of its system account.",
        ),
    ],
    nats_url: Annotated[str, typer.Option(envvar="FABWAFER_NATS_URL", help="The same server, with the bridge's user.")],
    metrics_host: Annotated[str, typer.Option(envvar="FABWAFER_METRICS_HOST")] = "127.0.0.1",
    metrics_port: Annotated[
        int, typer.Option(envvar="FABWAFER_METRICS_PORT", help="/metrics, /healthz, /readyz; 0 takes a free port.")
    ] = 0,
    replicas: Annotated[int, typer.Option(envvar="FABWAFER_REPLICAS", help="Copies of the registry of devices.")] = 1,
) -> None:
    """Let devices in: keep a nats-server's users like the registry, and count what its listener drops."""
    import structlog

    from fabwafer.service.health import HealthServer
    from fabwafer.service.logs import configure
    from fabwafer.service.process import end
    from fabwafer_bridge.device_auth import DeviceAuth

    configure()

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        keeper = DeviceAuth(
            server_url=server_url, bus_url=nats_url, users_path=users_file, log_file=log_file, replicas=replicas
        )
        health = HealthServer(lambda: keeper.unready)
        structlog.get_logger().info("listening", url=await health.start(metrics_host, metrics_port))
        work = asyncio.create_task(keeper.run())
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if work.done():
            work.result()  # it returns only by raising
        await end([work])
        await health.stop()

    asyncio.run(run())
