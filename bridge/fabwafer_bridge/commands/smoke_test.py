"""`fabwafer smoke-test`: one wafer map through the running system, as `helm test` runs it."""

import asyncio
import signal
from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Data

app = Commands()


@app.command()
async def smoke_test(
    timeout: Annotated[  # noqa: ASYNC109 - of the whole test, each step of which says what it had no time for
        int, typer.Option(min=1, max=3600, help="Seconds until a step that is not done has failed.")
    ] = 60,
    data: Data = None,
) -> None:
    """Send a wafer map as a device would, expect its prediction and its record, and remove all of it again.

    The device is `helm-test/camera-<random>`. Nothing of it alerts or is counted, and whatever happens it is revoked
    and its records are deleted. Exits with 1 and the step that failed.
    """
    from fabwafer.commands.connections import mqtt_listener, open_bus, open_records
    from fabwafer_bridge.devices import Devices
    from fabwafer_bridge.smoke_test import SmokeTest, SmokeTestError, System

    listener = mqtt_listener(data)
    async with open_bus(data) as client:
        with open_records(data) as records:
            devices = await Devices.open(client)
            test = SmokeTest(System(listener, client, devices, records), timeout, print)
            work = asyncio.create_task(test.run())
            # A container's first process would ignore it.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
            try:
                await work
            except asyncio.CancelledError:
                raise SmokeTestError("the smoke test was stopped by a signal") from None
    print("The smoke test has passed.")
