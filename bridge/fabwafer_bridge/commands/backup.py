"""`fabwafer backup`: writes what a system holds into a folder, while it runs."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import open_bus, open_records
from fabwafer.commands.options import Data, StoreAddress

app = Commands()


@app.command()
async def backup(
    folder: Annotated[Path, typer.Argument(help="The backup; a later one into the same folder adds what is new.")],
    data: Data = None,
    store: StoreAddress = None,
) -> None:
    """Write records, images, devices, unprocessed messages and models into a folder, while the system runs.

    What a device had acknowledged before this began is in the backup. The backup before stays until this one is whole.
    """
    from fabwafer.commands.system import store_address
    from fabwafer.models.store import open_store
    from fabwafer.service.disk import readable
    from fabwafer_bridge.backup import Backup
    from fabwafer_bridge.backup_folder import BackupError, BackupFolder

    models = open_store(store_address(store, data))
    place = BackupFolder(folder.absolute())
    with place.locked() as run:
        draft = Backup(place, run, print)
        with ExitStack() as stack:
            records = stack.enter_context(open_records(data))
            draft.check_system(records)
            async with open_bus(data) as bus:
                moment = await draft.add_bus(bus, lambda: stack.enter_context(records.moment()))
            draft.add_records(moment)
            draft.add_models(models, records)
        manifest = draft.commit()
    size = sum(entry.size for entry in manifest.files.values())
    print(f"the backup in {place.path} is whole: {len(manifest.files)} files, {readable(size)}")
    if draft.missing:
        raise BackupError(f"the backup is written, but not with all: {'; '.join(draft.missing)}")
