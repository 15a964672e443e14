"""A backup of a running system: bus, records and model store, in this order."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from fabwafer import __version__
from fabwafer.models.card import CARD_NAME
from fabwafer.models.store import Store, StoreError
from fabwafer.records import Records
from fabwafer.records.dump import Moment, dump_file, read_rows
from fabwafer.records.image_archives import ArchiveWriter, EarlierPlaces
from fabwafer.records.tables import rollouts
from fabwafer_bridge.backup_folder import BackupError, BackupFolder, FileEntry, Manifest
from fabwafer_bridge.devices import Devices, DevicesUnavailableError
from fabwafer_bridge.unprocessed import held, unprocessed

Say = Callable[[str], None]


class Backup:
    """One run that writes a backup; its methods are called in the order in which they stand here.

    The bus and the records are of one moment: each message, or its effect, is in one of the two at least. The model
    store is read after them, so that it has the versions that they name.

    Args:
        folder: Locked by the caller.
        run: The name of the run.
        say: Called with sentences on the progress.
    """

    def __init__(self, folder: BackupFolder, run: str, say: Say) -> None:
        self._folder, self._run, self._say = folder, run, say
        self._earlier = folder.manifest()
        self._fields: dict[str, Any] = {
            "run": run,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "fabwafer": __version__,
            "files": {},
        }
        self.missing: list[str] = []
        """Sentences on what should be in the backup and could not be had."""

    def check_system(self, records: Records) -> None:
        """Check that the folder's earlier backup is of this system; a system just set up must not take its place.

        Rollouts are only ever added, also by a restore: all of the backup's must be among the system's.

        Raises:
            BackupError: It is of another system.
            RecordsUnavailableError: The database cannot answer now.
        """
        if self._earlier is None:
            return
        file = dump_file(self._folder.records(self._earlier.run), rollouts.name)
        if not self._folder.unchanged(self._earlier, self._folder.name_of(file)):
            raise BackupError(
                f"the backup in {self._folder.path} is damaged, and it cannot be told whether it is of this system: "
                f"{self._folder.name_of(file)} is not what its manifest describes. Name another folder"
            )
        here = {(one.number, one.champion, one.time) for one in records.rollouts()}
        if any((row["id"], row["champion"], row["time"]) not in here for row in read_rows(file)):
            raise BackupError(
                f"the backup of {self._earlier.created} in {self._folder.path} is of another system: restore it into "
                "this one, or name another folder"
            )

    async def add_bus(self, client: Client, look: Callable[[], Moment]) -> Moment:
        """Write the devices and the unprocessed messages.

        Args:
            client: The connection to the bus.
            look: Looks at the records; called while the bus holds what is unprocessed.

        Returns:
            The records at that moment.

        Raises:
            RecordsUnavailableError: The database cannot answer now.
            SchemaError: The tables are not exactly those of this program.
            StreamsMissingError: The streams are not there.
            nats.errors.Error: The bus is away.
            TimeoutError: The bus does not answer.
        """
        file = self._folder.messages(self._run)
        file.parent.mkdir()
        counts: Counter[str] = Counter()
        js = client.jetstream(timeout=30)
        async with held(js) as processed:
            moment = look()
            with file.open("x", encoding="ascii") as lines:
                async for message in unprocessed(js, processed):
                    lines.write(message.to_line() + "\n")
                    counts[message.stream] += 1
        try:
            devices = await (await Devices.open(client)).all()
        except DevicesUnavailableError:  # they are on another broker, or registered nowhere yet
            devices = []
        with self._folder.devices(self._run).open("x", encoding="ascii") as lines:
            lines.writelines(device.model_dump_json() + "\n" for device in devices)
        self._fields |= {"messages": dict(counts), "devices": len(devices)}
        self._take_in(file.parent)
        self._say(f"{counts.total()} unprocessed messages, {len(devices)} devices")
        return moment

    def add_records(self, moment: Moment) -> None:
        """Write the records, and the images that the backup does not have.

        Raises:
            RecordsUnavailableError: The database cannot answer now.
        """
        target = self._folder.records(self._run)
        target.mkdir()
        earlier = self._earlier_places()
        with ArchiveWriter(self._folder.images, self._run) as images:
            dump = moment.dump(target, images, earlier, lambda table, count: self._say(f"{count} {table} so far"))
        self._fields |= {"tables": dump.schema, "rows": dump.rows}
        self._take_in(target)
        self._take_in(self._folder.images)
        if self._earlier is not None:
            self._fields["files"] |= {
                self._archive(name): self._earlier.files[self._archive(name)] for name in earlier.used
            }
        self._say(f"{dump.rows['wafers']} wafers, {dump.rows['predictions']} predictions, {dump.new_images} new images")

    def add_models(self, store: Store, records: Records) -> None:
        """Write the versions of the model that the backup does not have.

        Args:
            store: Where they are.
            records: They name the champion, which must be among them.

        Raises:
            RecordsUnavailableError: The database cannot answer now.
        """
        folders: dict[str, str] = {}
        try:
            there = store.names()
            if not there and self._earlier is not None and self._earlier.models:  # not mounted, for example
                raise StoreError(f"the model store {store} is empty")
        except StoreError as error:  # the records must not go without a backup for it
            self.missing.append(str(error))
            there = list(self._earlier.models if self._earlier else ())
            folders = {version: folder for version in there if (folder := self._earlier_folder(version))}
        else:
            for version in there:
                try:
                    folder = self._same_earlier_folder(store, version) or self._copy_version(store, version)
                except StoreError as error:
                    self.missing.append(str(error))
                    folder = self._earlier_folder(version) or ""
                if folder:
                    folders[version] = folder
        for folder in folders.values():
            self._fields["files"] |= self._earlier_files(folder)
        rollout = records.rollout()
        named = {rollout.champion, rollout.candidate} - {None} if rollout else set()
        self.missing += [
            f"version {version}, which the records name, is not in the model store {store}"
            for version in sorted(map(str, named))
            if version not in there
        ]
        self._fields["models"] = folders
        self._say(f"{len(folders)} versions of the model")

    def commit(self) -> Manifest:
        """Make what was written the backup, in place of the one before."""
        manifest = Manifest.model_validate(self._fields)
        self._folder.replace_manifest(manifest)
        return manifest

    def _take_in(self, folder: Path) -> None:
        self._fields["files"] |= self._folder.entries(folder, self._run)

    def _earlier_places(self) -> EarlierPlaces:
        if self._earlier is None:
            return EarlierPlaces([], ())
        shots = dump_file(self._folder.records(self._earlier.run), "shots")
        if not self._folder.unchanged(self._earlier, self._folder.name_of(shots)):
            return EarlierPlaces([], ())
        archives = {file.name for file in self._folder.images.glob("*.tar")}
        usable = {name for name in archives if self._folder.whole(self._earlier, self._archive(name))}
        return EarlierPlaces(read_rows(shots), usable)

    def _archive(self, name: str) -> str:
        return self._folder.name_of(self._folder.images / name)

    def _same_earlier_folder(self, store: Store, version: str) -> str | None:
        """Return the folder of a version that the backup has already; None where it has none, or another one."""
        folder = self._earlier_folder(version)
        if folder and (self._folder.path / folder / CARD_NAME).read_bytes() == store.read(version, CARD_NAME):
            return folder
        return None

    def _earlier_folder(self, version: str) -> str | None:
        """Return the folder of the version of that name in the earlier backup; None where there is no whole one."""
        if self._earlier is None or version not in self._earlier.models:
            return None
        folder = self._earlier.models[version]
        files = self._earlier_files(folder)
        whole = f"{folder}/{CARD_NAME}" in files and all(self._folder.whole(self._earlier, name) for name in files)
        return folder if whole else None

    def _earlier_files(self, folder: str) -> dict[str, FileEntry]:
        files = self._earlier.files if self._earlier else {}
        return {name: entry for name, entry in files.items() if name.startswith(f"{folder}/")}

    def _copy_version(self, store: Store, version: str) -> str:
        target = self._folder.models(self._run) / version
        with tempfile.TemporaryDirectory(prefix="fabwafer-version-") as folder:
            try:
                shutil.copytree(store.fetch(version, Path(folder)), target)
            except shutil.Error as error:
                raise BackupError(f"cannot copy the version {version} from {store}: {error}") from None
        self._take_in(target)
        return self._folder.name_of(target)
