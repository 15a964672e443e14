"""`fabwafer device`: the credentials of the devices."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import BusUnavailableError, mqtt_listener, open_bus
from fabwafer.commands.options import Data, Json
from fabwafer.commands.system import SystemNotFoundError
from fabwafer.commands.text import console

if TYPE_CHECKING:
    from fabwafer.service.listener import Listener
    from fabwafer_bridge.devices import Credentials, Devices

app = Commands(no_args_is_help=True, help="Add, list, rotate and revoke the credentials of devices.")

WAIT_SECONDS: Final = 60.0
"""How long a command waits for a system that is just starting."""
TRY_EVERY: Final = 0.2

Fab = Annotated[str, typer.Argument(help="The fab: letters, digits, '_' and '-'.")]
Camera = Annotated[str, typer.Argument(help="The camera: letters, digits, '_' and '-'.")]


@dataclass(frozen=True, slots=True)
class Patience:
    """The time that a command has."""

    until: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.until - time.monotonic())


@app.command()
async def add(fab: Fab, camera: Camera, data: Data = None, as_json: Json = False) -> None:
    """Give a new device credentials, and return when they work."""
    async with _open_devices(data) as (devices, patience):
        listener = mqtt_listener(data)
        await _hand_over(devices, await devices.add(fab, camera), listener, patience, as_json)


@app.command()
async def rotate(fab: Fab, camera: Camera, data: Data = None, as_json: Json = False) -> None:
    """Give a device a new password, and return when it works and the old one does not."""
    async with _open_devices(data) as (devices, patience):
        listener = mqtt_listener(data)
        await _hand_over(devices, await devices.rotate(fab, camera), listener, patience, as_json)


@app.command()
async def revoke(fab: Fab, camera: Camera, data: Data = None, as_json: Json = False) -> None:
    """End a device's credentials and its connection."""
    async with _open_devices(data) as (devices, patience):
        await devices.revoke(fab, camera)
        await devices.until_applied(patience.left)
    user = f"{fab}.{camera}"
    if as_json:
        print(json.dumps({"user": user}))
    else:
        print(f"{user} may not connect any more.", file=sys.stderr)


@app.command(name="list")
async def list_(data: Data = None, as_json: Json = False) -> None:
    """List the devices that may connect."""
    async with _open_devices(data) as (devices, _):
        listed = await devices.all()
    if as_json:
        for device in listed:
            shown = {"user": device.user, "fab": device.fab, "camera": device.camera, "created": device.created}
            print(json.dumps(shown))
        return
    from rich.table import Table

    table = Table("user", "fab", "camera", "created")
    for device in listed:
        created = datetime.fromtimestamp(device.created / 1000, UTC)
        table.add_row(device.user, device.fab, device.camera, f"{created:%Y-%m-%d %H:%M:%S} UTC")
    console().print(table if table.row_count else "No devices.")


async def _hand_over(
    devices: "Devices", credentials: "Credentials", listener: "Listener", patience: Patience, as_json: bool
) -> None:
    """Print credentials as soon as they work."""
    await devices.until_applied(patience.left)
    await _until_accepted(listener, credentials, patience)
    if as_json:
        print(credentials.model_dump_json())
        return
    user, password = credentials.user, credentials.password
    fab, camera = user.split(".")
    print(
        f"user      {user}\n"
        f"password  {password}\n\n"
        "The password is shown only now; `fabwafer device rotate` makes a new one. To try it:\n\n"
        f"  mosquitto_pub -h {listener.host} -p {listener.port} -u {user} -P {password} -q 1 \\\n"
        f"    {'--cafile CA.crt ' if listener.tls else ''}-t fabwafer/{fab}/{camera}/img/1 -f message.json"
    )


async def _until_accepted(listener: "Listener", credentials: "Credentials", patience: Patience) -> None:
    import secrets

    import aiomqtt

    from fabwafer_bridge.devices import DeviceError

    while True:
        try:
            async with aiomqtt.Client(
                listener.host,
                listener.port,
                username=credentials.user,
                password=credentials.password,
                identifier=f"device-command-{secrets.token_hex(4)}",
                timeout=5,
                tls_context=listener.tls,
            ):
                return
        except aiomqtt.MqttError as error:
            if not patience.left:
                raise DeviceError(
                    f"the credentials of {credentials.user} are stored, but {listener} does not accept them "
                    f"({error}): once it does, get a new password with `fabwafer device rotate`"
                ) from None
        await asyncio.sleep(TRY_EVERY)


@asynccontextmanager
async def _open_devices(data: Path | None) -> "AsyncIterator[tuple[Devices, Patience]]":
    """Open the registry of devices, waiting for a system that is just starting."""
    from nats.errors import Error as NatsError

    from fabwafer_bridge.devices import Devices, DevicesUnavailableError

    patience = Patience(time.monotonic() + WAIT_SECONDS)
    announced = False
    while True:
        async with AsyncExitStack() as stack:
            try:
                devices = await Devices.open(await stack.enter_async_context(open_bus(data)))
            except (SystemNotFoundError, BusUnavailableError, DevicesUnavailableError, NatsError) as error:
                if not patience.left:
                    raise
                if isinstance(error, SystemNotFoundError) and not announced:
                    print(f"{error}; waiting for it for {WAIT_SECONDS:.0f} s", file=sys.stderr)
                    announced = True
            else:
                yield devices, patience
                return
        await asyncio.sleep(TRY_EVERY)
