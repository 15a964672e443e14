"""`fabwafer device-auth`: runs device-auth beside a nats-server."""

import asyncio
import functools
from pathlib import Path
from typing import Annotated

import typer

from fabwafer.commands.app import Commands

app = Commands()


@app.command()
async def device_auth(
    users_file: Annotated[
        Path | None, typer.Option(help="The file with the device users; else $FABWAFER_USERS_FILE.")
    ] = None,
    log_file: Annotated[Path | None, typer.Option(help="The server's log; else $FABWAFER_LOG_FILE.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics, /healthz and /readyz; else $FABWAFER_METRICS_PORT.")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Copies of the registry of devices; else $FABWAFER_REPLICAS.")
    ] = None,
) -> None:
    """Give a nats-server the users of the registered devices and a renewed certificate, and count what it drops.

    The other settings come from the environment: FABWAFER_NATS_SYSTEM_URL, FABWAFER_NATS_URL and more, see
    docs/device-auth.md.
    """
    import structlog

    from fabwafer.service.health import HealthServer
    from fabwafer.service.logs import configure
    from fabwafer.service.process import end, first_of, until_signal
    from fabwafer_bridge.device_auth import DeviceAuth, DeviceAuthSettings

    settings = DeviceAuthSettings.read(
        users_file=users_file, log_file=log_file, metrics_port=metrics_port, replicas=replicas
    )
    configure()
    sidecar = DeviceAuth(
        server_url=settings.server_url,
        bus_url=settings.bus_url,
        users_path=settings.users_file,
        log_file=settings.log_file,
        replicas=settings.replicas,
        certificate=settings.certificate,
        echo=functools.partial(print, flush=True) if settings.echo_log else None,
    )

    async def run(stopping: asyncio.Event) -> None:
        health = HealthServer(lambda: sidecar.unready)
        structlog.get_logger().info("metrics", address=await health.start(settings.metrics_host, settings.metrics_port))
        work = asyncio.create_task(sidecar.run())
        await first_of(stopping, work)
        await end([work])
        await health.stop()

    await until_signal(run)
