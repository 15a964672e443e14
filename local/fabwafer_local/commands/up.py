"""`fabwafer up`: the whole system on this machine."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Data
from fabwafer.commands.text import console

if TYPE_CHECKING:
    from fabwafer.models.store import Store
    from fabwafer_local.ports import Ports
    from fabwafer_local.stack import Stack
    from fabwafer_local.view import View

app = Commands()

SAMPLE_RATE: Final = 4.0
"""Sample images a second: slow enough to watch."""


@app.command()
def up(
    *,
    data: Data = None,
    mqtt: Annotated[int | None, typer.Option(min=1, max=65535, help="Port for devices; default: a free one.")] = None,
    nats: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the bus.")] = None,
    inference: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the model server.")] = None,
    metrics: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the bridge's metrics.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Sample wafer maps to publish; 0: just serve.")] = 40,
) -> None:
    """Start everything on this machine, publish sample wafer maps as a camera would, and show the predictions.

    Everything listens on 127.0.0.1 only. Ctrl-C stops it.
    """
    from fabwafer.commands.system import data_directory, store_address
    from fabwafer.errors import FabwaferError
    from fabwafer.models.store import open_store
    from fabwafer_local.ports import Ports, chosen_ports
    from fabwafer_local.stack import locked

    directory = data_directory(data)
    try:
        with locked(directory):
            ports = Ports(
                *chosen_ports({"--mqtt": mqtt, "--nats": nats, "--inference": inference, "--metrics": metrics})
            )
            # Within the lock, since it also waits for threads that still work on the directory.
            asyncio.run(_run(directory, open_store(store_address(None, data)), ports, samples))
    except (FabwaferError, OSError) as error:
        raise SystemExit(f"fabwafer up: {error}") from None


async def _run(directory: Path, store: "Store", ports: "Ports", samples: int) -> None:
    """Run the system until a signal asks it to stop, or until a part fails for good."""
    from fabwafer.service.process import STOP_SIGNALS, end, first_of, until_signal
    from fabwafer_local.stack import Stack
    from fabwafer_local.view import View

    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # a terminal that cannot show a letter must not end the system
        reconfigure(errors="backslashreplace")
    view = View(console())

    async def run(stopping: asyncio.Event) -> None:
        stack = Stack(directory, store, ports, view.say)
        work = asyncio.create_task(_work(stack, view, directory, samples))
        try:
            await first_of(stopping, work)
        finally:
            await end([work])
            _ = work.cancelled() or work.exception()  # marks it as seen; it was raised above
            try:
                view.say("Stopping: what is under way is finished first.")
                await view.stop()
            finally:  # a failing view must not leave processes behind
                await stack.stop()
            view.say("Stopped.")

    await until_signal(run, (*STOP_SIGNALS, signal.SIGHUP))  # SIGHUP comes when the terminal is closed


async def _work(stack: "Stack", view: "View", directory: Path, samples: int) -> None:
    from fabwafer_local.samples import write_samples
    from fabwafer_local.stack import StackError
    from fabwafer_local.supervisor import PartFailedError

    started = time.monotonic()
    view.say(f"Starting fabwafer on {directory}")
    await stack.start()
    view.say(f"Running after {time.monotonic() - started:.1f} s")
    view.say(_addresses(stack))
    await view.listen(stack.system.nats_url)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(view.draw())
            group.create_task(stack.watch())
            if samples:
                try:
                    files = await asyncio.to_thread(write_samples, directory / "samples", samples)
                except OSError as error:
                    view.say(f"the samples could not be written: {error}")
                else:
                    await stack.send_samples(files, SAMPLE_RATE)
    except* (PartFailedError, StackError) as failed:
        raise failed.exceptions[0] from None


def _addresses(stack: "Stack") -> str:
    system = stack.system
    return (
        f"  MQTT       {system.mqtt_url}   topic fabwafer/<fab>/<camera>/img/<imgid>\n"
        f"  NATS       nats://{system.nats_url.rpartition('@')[2]}\n"
        f"  inference  {system.inference_url}/v2/models/wafer/infer   token in {system.inference_key_file}\n"
        f"  metrics    {system.metrics_url}/metrics   of device-auth: {system.device_auth_url}/metrics\n"
        f"Add a camera: fabwafer device add FAB CAMERA   Send your own images: fabwafer send IMAGE...   Stop: Ctrl-C"
    )
