"""`fabwafer restore`: brings an empty system to what a backup holds."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import BusUnavailableError, open_bus, open_records
from fabwafer.commands.options import Data, StoreAddress

app = Commands()


@app.command()
async def restore(
    folder: Annotated[Path, typer.Argument(help="The backup.")],
    data: Data = None,
    store: StoreAddress = None,
    check: Annotated[bool, typer.Option("--check", help="Only check that the backup is whole.")] = False,
) -> None:
    """Restore a backup into a system that runs and is empty: started, but no device has sent anything.

    Devices come last, with the passwords that they have.
    """
    from nats.errors import Error as NatsError

    from fabwafer.commands.system import address, store_address
    from fabwafer.models.store import open_store
    from fabwafer.service.logs import configure
    from fabwafer_bridge.backup_folder import BackupFolder
    from fabwafer_bridge.connection import connect
    from fabwafer_bridge.inference import ModelServer, infer_url
    from fabwafer_bridge.restore import Restore

    configure()
    running = Restore(BackupFolder(folder.absolute()), print)
    if check:
        return
    models = open_store(store_address(store, data))
    model_server = infer_url(address("inference_url", data))
    with open_records(data) as records:
        async with open_bus(data) as bus:
            await running.find_obstacles(bus, records, models)
        running.add_models(models)
        running.add_records(records)
        async with ModelServer.session() as http:
            await running.until_champion_serves(ModelServer(http, model_server, _key_file(data)), records)
    client = await connect(address("nats_url", data), name="fabwafer-restore")
    try:
        await running.add_bus(client)
    except (NatsError, TimeoutError) as error:
        raise BusUnavailableError(f"the bus did not answer: {error!r}") from None
    finally:
        await client.close()
    print("restored")


def _key_file(data: Path | None) -> Path | None:
    """Return the model server's key file; None where it asks for no token, as in a cluster."""
    from fabwafer.commands.system import data_directory, read_system
    from fabwafer_bridge.settings import BridgeSettings

    if data is None and os.environ.get("FABWAFER_INFERENCE_URL"):
        return BridgeSettings.read().inference_key_file
    return read_system(data_directory(data)).inference_key_file
