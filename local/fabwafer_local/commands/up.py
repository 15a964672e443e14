"""`fabwafer up`: the whole system on this machine."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fabwafer.commands.system import data_directory

if TYPE_CHECKING:
    from fabwafer.models.store import Store
    from fabwafer_local.ports import Ports
    from fabwafer_local.stack import Stack
    from fabwafer_local.view import View

app = typer.Typer()

SAMPLE_RATE = 4.0
"""Sample images a second: slow enough to watch."""


@app.command()
def up(
    data: Annotated[Path | None, typer.Option(help="Where streams, records and credentials are kept.")] = None,
    mqtt: Annotated[int | None, typer.Option(min=1, max=65535, help="Port for devices; default: a free one.")] = None,
    nats: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the bus.")] = None,
    inference: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the model server.")] = None,
    metrics: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the bridge's metrics.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Sample wafer maps to publish; 0: just serve.")] = 40,
) -> None:
    """Start everything on this machine, publish sample wafer maps as a camera would, and show what comes of it.

    Everything listens on 127.0.0.1 only. Ctrl-C stops it.
    """
    from fabwafer.commands.system import store_address
    from fabwafer.models.store import StoreError, open_store
    from fabwafer.records import RecordsUnavailableError, SchemaError
    from fabwafer_local.ports import Ports, chosen_ports
    from fabwafer_local.stack import StackError, locked
    from fabwafer_local.supervisor import PartFailedError

    directory = data_directory(data)
    try:
        with locked(directory):
            ports = Ports(
                *chosen_ports({"--mqtt": mqtt, "--nats": nats, "--inference": inference, "--metrics": metrics})
            )
            asyncio.run(_run(directory, open_store(store_address(None, data)), ports, samples))
    except (StackError, StoreError, PartFailedError, SchemaError, RecordsUnavailableError, OSError) as error:
        raise SystemExit(f"fabwafer up: {error}") from None


async def _run(directory: Path, store: "Store", ports: "Ports", samples: int) -> None:
    """Runs the system until it is told to stop by a signal, or until a part fails for good."""
    from rich.console import Console

    from fabwafer_local.stack import Stack
    from fabwafer_local.view import View

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the last when the terminal is closed
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # a terminal that cannot show a letter must not end the system
        reconfigure(errors="backslashreplace")
    view = View(Console())
    stack = Stack(directory, store, ports, view.say)
    work = asyncio.create_task(_work(stack, view, directory, samples))
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()  # raises: the work has no end of its own
    finally:
        stop.cancel()
        while not work.done():  # asyncio.wait_for of Python 3.11 can lose a cancellation
            work.cancel()
            await asyncio.wait([work], timeout=0.5)
        _ = work.cancelled() or work.exception()  # looked at: what it failed of was raised above
        try:
            view.say("Stopping: what is under way is finished first.")
            await view.stop()
        finally:  # whatever happens to what is only shown, no process stays behind
            await stack.stop()
        view.say("Stopped.")


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
                files = await asyncio.to_thread(write_samples, directory / "samples", samples)
                await stack.send_samples(files, SAMPLE_RATE)
    except* (PartFailedError, StackError) as failed:
        raise failed.exceptions[0] from None


def _addresses(stack: "Stack") -> str:
    system = stack.system
    return (
        f"  MQTT       {system.mqtt_url}   topic fabwafer/<fab>/<camera>/img/<imgid>\n"
        f"  NATS       nats://{system.nats_url.rpartition('@')[2]}\n"
        f"  inference  {system.inference_url}/v2/models/wafer/infer\n"
        f"  metrics    {system.metrics_url}/metrics   of the device-auth: {system.device_auth_url}/metrics\n"
        f"Add a camera: fabwafer device add FAB CAMERA   Send your own images: fabwafer send IMAGE...   Stop: Ctrl-C"
    )
