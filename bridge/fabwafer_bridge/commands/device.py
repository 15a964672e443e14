"""`fabwafer device`: the credentials of the devices."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from fabwafer.commands.system import SystemNotFoundError, address, wait_for

if TYPE_CHECKING:
    from nats.aio.client import Client

    from fabwafer_bridge.devices import Credentials, Devices

app = typer.Typer(no_args_is_help=True, help="Add, list, rotate and revoke the credentials of devices.")

WAIT_SECONDS: Final = 60.0
"""How long a system that is just starting is waited for."""

Fab = Annotated[str, typer.Argument(help="The fab: letters, digits, '_' and '-'.")]
Camera = Annotated[str, typer.Argument(help="The camera: letters, digits, '_' and '-'.")]
Data = Annotated[Path | None, typer.Option(help="The system's data directory.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]


@app.command()
def add(fab: Fab, camera: Camera, data: Data = None, as_json: Json = False) -> None:
    """Give a new device credentials, and return when they work."""
    _give(lambda devices: devices.add(fab, camera), data, as_json)


@app.command()
def rotate(fab: Fab, camera: Camera, data: Data = None, as_json: Json = False) -> None:
    """Give a device a new password, and return when it works and the old one does not."""
    _give(lambda devices: devices.rotate(fab, camera), data, as_json)


@app.command()
def revoke(fab: Fab, camera: Camera, data: Data = None, as_json: Json = False) -> None:
    """End a device's credentials and its connection."""

    async def work(devices: "Devices", left: Callable[[], float]) -> None:
        await devices.revoke(fab, camera)
        await devices.until_applied(left())
        user = f"{fab}.{camera}"
        if as_json:
            print(json.dumps({"user": user}))
        else:
            print(f"{user} may not connect any more.", file=sys.stderr)

    _with_devices(data, work)


@app.command(name="list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """List the devices that may connect."""

    async def work(devices: "Devices", _: Callable[[], float]) -> None:
        listed = await devices.all()
        if as_json:
            for device in listed:
                shown = {"user": device.user, "fab": device.fab, "camera": device.camera, "created": device.created}
                print(json.dumps(shown))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table("user", "fab", "camera", "created")
        for device in listed:
            created = datetime.fromtimestamp(device.created / 1000, UTC)
            table.add_row(device.user, device.fab, device.camera, f"{created:%Y-%m-%d %H:%M:%S} UTC")
        Console().print(table if table.row_count else "No devices.")

    _with_devices(data, work)


def _give(change: "Callable[[Devices], Coroutine[Any, Any, Credentials]]", data: Path | None, as_json: bool) -> None:
    async def work(devices: "Devices", left: Callable[[], float]) -> None:
        host, port = _host_and_port(address("mqtt_url", data))
        credentials = await change(devices)
        await devices.until_applied(left())
        await _until_let_in(host, port, credentials, left)
        if as_json:
            print(credentials.model_dump_json())
            return
        fab, camera = credentials.user.split(".")
        print(
            f"user      {credentials.user}\n"
            f"password  {credentials.password}\n\n"
            "The password is shown only now; a new one comes with `fabwafer device rotate`. To try it:\n\n"
            f"  mosquitto_pub -h {host} -p {port} -u {credentials.user} -P {credentials.password} -q 1 \\\n"
            f"    -t fabwafer/{fab}/{camera}/img/1 -f message.json"
        )

    _with_devices(data, work)


async def _until_let_in(host: str, port: int, credentials: "Credentials", left: Callable[[], float]) -> None:
    import secrets

    import aiomqtt

    from fabwafer_bridge.devices import DeviceError

    while True:
        try:
            async with aiomqtt.Client(
                host,
                port,
                username=credentials.user,
                password=credentials.password,
                identifier=f"device-command-{secrets.token_hex(4)}",
                timeout=5,
            ):
                return
        except aiomqtt.MqttError as error:
            if left() <= 0:
                raise DeviceError(
                    f"the credentials of {credentials.user} are stored, but mqtt://{host}:{port} does not let them in "
                    f"({error}): once it does, get a new password with `fabwafer device rotate`"
                ) from None
        await asyncio.sleep(0.2)


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 1883


def _with_devices(
    data: Path | None, work: "Callable[[Devices, Callable[[], float]], Coroutine[Any, Any, None]]"
) -> None:
    """Runs something on the registry of the system, waiting for one that is just starting.

    The second argument of `work` tells how many seconds of that time are left.
    """
    from nats.errors import Error as NatsError

    from fabwafer_bridge.devices import DeviceError, DevicesUnavailableError

    deadline = time.monotonic() + WAIT_SECONDS

    def left() -> float:
        return max(0.0, deadline - time.monotonic())

    async def run(url: str) -> None:
        client, devices = await _opened(url, left)
        try:
            await work(devices, left)
        finally:
            await client.close()

    try:
        asyncio.run(run(_bus_url(data)))
    except (SystemNotFoundError, DeviceError, DevicesUnavailableError) as error:
        raise SystemExit(str(error)) from None
    except (NatsError, OSError) as error:
        raise SystemExit(f"the bus did not answer: {error!r}") from None


def _bus_url(data: Path | None) -> str:
    try:
        return address("nats_url", data)
    except SystemNotFoundError as error:
        print(f"{error}; waiting for it for {WAIT_SECONDS:.0f} s", file=sys.stderr)
    return wait_for(lambda: address("nats_url", data), WAIT_SECONDS)


async def _opened(url: str, left: Callable[[], float]) -> "tuple[Client, Devices]":
    """Connects to the bus and opens the registry, as soon as both are there."""
    import nats
    from nats.errors import Error as NatsError

    from fabwafer_bridge.devices import Devices, DevicesUnavailableError

    async def quiet(_: Exception) -> None:
        """What goes wrong is raised where it is asked for."""

    while True:
        client = None
        try:
            client = await nats.connect(url.split(","), allow_reconnect=False, connect_timeout=5, error_cb=quiet)
            return client, await Devices.open(client)
        except (NatsError, OSError, DevicesUnavailableError):
            if client is not None:
                await client.close()
            if left() <= 0:
                raise
            await asyncio.sleep(0.2)
