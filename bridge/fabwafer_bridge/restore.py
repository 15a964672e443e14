"""A restore of a backup into an empty system: model store, records, then the bus, so that the devices come last."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from fabwafer.models.card import CARD_NAME
from fabwafer.models.store import Store
from fabwafer.records import Records
from fabwafer.records.image_archives import ArchiveReader
from fabwafer.records.schema import loads
from fabwafer.records.tables import SCHEMA
from fabwafer_bridge.backup_folder import BackupError, BackupFolder, Manifest
from fabwafer_bridge.devices import Device, Devices
from fabwafer_bridge.inference import PROBE, ModelServerError
from fabwafer_bridge.jobs import Server
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.unprocessed import publish_again, read_messages, waiting

Say = Callable[[str], None]

CHAMPION_SECONDS: Final = 600.0
"""How long the champion is waited for: a model server that loads another version has it within a few minutes."""
IN_A_ROW: Final = 5
"""While one model server takes the place of another, both may answer in turn."""
ASK_EVERY: Final = 0.5


class Restore:
    """A restore; its methods are called in the order in which they stand here.

    Args:
        folder: Holds the backup.
        say: Called with sentences on the progress.

    Raises:
        BackupError: It is damaged, or of a later version of fabwafer.
    """

    def __init__(self, folder: BackupFolder, say: Say) -> None:
        self._folder, self._say = folder, say
        self.manifest: Manifest = folder.checked_manifest()
        say(f"the backup of {self.manifest.created} is whole: {len(self.manifest.files)} files")
        if not loads(self.manifest.tables):
            raise BackupError(
                f"the backup in {folder.path} is of fabwafer {self.manifest.fabwafer} with tables of version "
                f"{self.manifest.tables}; this program knows {SCHEMA}, and loads those before it of the same minor "
                "version: restore it with a fabwafer of the backup's version, then upgrade"
            )
        self._records_are_there = False

    async def find_obstacles(self, client: Client, records: Records, store: Store) -> None:
        """Check that the system is empty; records that an interrupted restore has loaded are no obstacle.

        Raises:
            BackupError: It is not; the text says what is in the way.
            DevicesUnavailableError: There is no registry for the devices of the backup.
            StreamsMissingError: There are no streams.
        """
        found = await asyncio.to_thread(records.obstacles)
        if found:
            loaded = self._folder.records(self.manifest.run)
            self._records_are_there = await asyncio.to_thread(lambda: records.holds(loaded))
        if self._records_are_there:
            found = []
        found = [f"{one} in the records" for one in found]
        found += [f"{n} messages in {stream}" for stream, n in (await waiting(client.jetstream())).items()]
        found += [f"another version {version} in the model store {store}" for version in self._differing(store)]
        if found:
            raise BackupError(f"a backup is restored into an empty system only, here are: {', '.join(found)}")
        if self.manifest.devices:
            await Devices.open(client)

    def add_models(self, store: Store) -> None:
        """Publish the versions of the model that the store does not have.

        Raises:
            StoreError: The store cannot be written, or a version is not whole.
        """
        there = set(store.names())
        for version, folder in self.manifest.models.items():
            if version not in there:
                work = store.new_work_folder(version)
                try:
                    shutil.copytree(self._folder.path / folder, work, dirs_exist_ok=True)
                    work.chmod(0o755)  # it becomes the version's, which model servers of other users read
                    store.publish(version, work)
                except OSError as error:
                    raise BackupError(f"cannot copy the version {version} into {store}: {error}") from None
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        self._say(f"{len(self.manifest.models)} versions of the model in {store}")

    def add_records(self, records: Records) -> None:
        """Load the records, all or nothing.

        Raises:
            RecordsNotEmptyError: Something was recorded meanwhile.
            RecordsUnavailableError: The database cannot answer now.
            SchemaError: The tables are not exactly those of this program.
        """
        if self._records_are_there:
            self._say("the records are there already, from a restore that was interrupted")
            return
        with ArchiveReader(self._folder.images) as images:
            records.load(
                self._folder.records(self.manifest.run),
                images,
                lambda table, count: self._say(f"{count} of {self.manifest.rows[table]} {table}"),
            )
        rows = self.manifest.rows
        self._say(f"{rows['wafers']} wafers, {rows['predictions']} predictions")

    async def until_champion_serves(self, server: Server, records: Records, seconds: float = CHAMPION_SECONDS) -> None:
        """Wait until the model server answers with the champion, so that no other predicts in its place.

        Args:
            server: The model server, which starts with the model of its release.
            records: They name the champion.
            seconds: After which no longer is waited.
        """
        rollout = records.rollout()
        if rollout is None:
            return
        deadline, in_a_row, shown = time.monotonic() + seconds, 0, ""
        while in_a_row < IN_A_ROW:
            try:
                [answer] = await server.classify([PROBE])
                serving = answer.model
            except ModelServerError as error:
                serving = f"nothing: {error}"
            in_a_row = in_a_row + 1 if serving == rollout.champion else 0
            if not in_a_row and serving != shown:
                self._say(f"waiting for the model {rollout.champion} to serve; now it is {serving}")
                shown = serving
            if time.monotonic() > deadline:
                self._say(f"the model {rollout.champion} does not serve yet; what comes is predicted by what does")
                return
            await asyncio.sleep(ASK_EVERY)

    async def add_bus(self, client: Client) -> None:
        """Publish the unprocessed messages, then add the devices, and return when they can connect.

        Args:
            client: Reconnects by itself: the messages are published for as long as it takes.

        Raises:
            BackupError: A message can never be stored.
            DeviceError: The devices are stored, but no server has them yet.
        """
        messages = read_messages(self._folder.messages(self.manifest.run))
        stored, refused = await publish_again(Publisher(client), messages)
        self._say(f"{stored} unprocessed messages published")
        await self._add_devices(await Devices.open(client) if self.manifest.devices else None)
        if refused:
            raise BackupError(f"all is restored but {len(refused)} messages: {refused[0]}")

    async def _add_devices(self, devices: Devices | None) -> None:
        if devices is None:
            return
        lines = self._folder.devices(self.manifest.run).read_text(encoding="ascii").splitlines()
        here = await devices.take_over([Device.model_validate_json(line) for line in lines])
        for user in here:
            self._say(f"device {user} was here already, and keeps the password that it has here")
        await devices.until_applied(60)
        self._say(f"{len(lines) - len(here)} devices may connect with their passwords")

    def _differing(self, store: Store) -> list[str]:
        there = set(store.names())
        return [
            version
            for version, folder in self.manifest.models.items()
            if version in there and store.read(version, CARD_NAME) != _card(self._folder.path / folder)
        ]


def _card(folder: Path) -> bytes:
    return (folder / CARD_NAME).read_bytes()
