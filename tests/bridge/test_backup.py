"""What a system holds is written into a folder, and brought back in another system; real buses, records and stores."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from typer.testing import CliRunner, Result

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages.headers import MESSAGE_ID
from fabwafer.models.store import open_store
from fabwafer.records import Records
from fabwafer_bridge.backup_folder import MANIFEST, BackupError, BackupFolder
from fabwafer_bridge.commands import backup as backup_command
from fabwafer_bridge.commands import restore as restore_command
from fabwafer_bridge.devices import Credentials, Device, Devices
from fabwafer_bridge.inference import Answer, ModelServerError
from fabwafer_bridge.restore import Restore
from fabwafer_bridge.unprocessed import held, unprocessed
from tests.support import tiny_models
from tests.support.device_auth import DeviceAuthProcess
from tests.support.devices import Device as Camera
from tests.support.model_servers import KServe
from tests.support.nats_servers import NatsServer
from tests.support.object_store import Bucket
from tests.support.records import predicted, shot
from tests.support.small_disks import SmallDisk
from tests.support.streams import make_streams

CHAMPION = "tiny-1"
"""The version that the model server of these tests answers with."""


@pytest.fixture(scope="module")
def model_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KServe]:
    server = KServe(tmp_path_factory.mktemp("server"), tiny_model)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass
class Site:
    """A system without a bridge: a bus with streams, records, a model store."""

    server: NatsServer
    database: str
    store: str
    inference: str

    @property
    def env(self) -> dict[str, str]:
        return {
            "FABWAFER_NATS_URL": self.server.url,
            "FABWAFER_DATABASE_URL": self.database,
            "FABWAFER_MODEL_STORE": self.store,
            "FABWAFER_INFERENCE_URL": self.inference,
        }

    def backup(self, folder: Path) -> Result:
        return CliRunner().invoke(backup_command.app, [str(folder)], env=self.env)

    def restore(self, folder: Path, *more: str) -> Result:
        return CliRunner().invoke(restore_command.app, [str(folder), *more], env=self.env)

    def publish(self, version: str) -> None:
        store = open_store(self.store)
        tiny_models.make(store.work_folder(version), version)
        store.publish(version)

    def send(self, messages: Sequence[tuple[str, bytes, dict[str, str]]]) -> None:
        async def publish() -> None:
            client = await nats.connect(self.server.url)
            for subject, payload, headers in messages:
                await client.jetstream().publish(subject, payload, headers=headers)
            await client.close()

        asyncio.run(publish())

    def messages(self) -> list[tuple[str, bytes, str | None]]:
        async def read() -> list[tuple[str, bytes, str | None]]:
            client = await nats.connect(self.server.url)
            async with held(client.jetstream()) as processed:
                found = [one async for one in unprocessed(client.jetstream(), processed)]
            await client.close()
            return [(one.subject, one.payload, one.headers.get(MESSAGE_ID)) for one in found]

        return asyncio.run(read())

    def devices(self) -> list[Device]:
        async def read() -> list[Device]:
            client = await nats.connect(self.server.url)
            found = await (await Devices.make(client, replicas=1)).all()
            await client.close()
            return found

        return asyncio.run(read())

    def add_device(self, fab: str, camera: str) -> Credentials:
        async def add() -> Credentials:
            client = await nats.connect(self.server.url)
            credentials = await (await Devices.make(client, replicas=1)).add(fab, camera)
            await client.close()
            return credentials

        return asyncio.run(add())


@pytest.fixture
def site(tmp_path: Path, nats_server: NatsServer, migrated_sqlite: Path, model_server: KServe) -> Site:
    return made(tmp_path / "site", nats_server, migrated_sqlite, model_server)


@pytest.fixture
def another(tmp_path: Path, migrated_sqlite: Path, model_server: KServe) -> Iterator[Site]:
    """A second system, just set up."""
    with NatsServer(tmp_path / "another-nats") as server:
        there = made(tmp_path / "another", server, migrated_sqlite, model_server)
        there.publish("shipped")
        with Records(there.database) as records:
            records.set_rollout("shipped", author="fabwafer")
        yield there


@pytest.fixture
def device_auth(another: Site) -> Iterator[DeviceAuthProcess]:
    """That of the second system, which lets devices in."""
    with DeviceAuthProcess(another.server) as running:
        yield running


def made(directory: Path, server: NatsServer, migrated: Path, model_server: KServe) -> Site:
    directory.mkdir()
    shutil.copy(migrated, directory / "records.db")
    asyncio.run(make_streams(server.url))
    return Site(server, f"sqlite:///{directory / 'records.db'}", str(directory / "store"), model_server.url)


def fill(site: Site) -> None:
    """Lets a system hold something everywhere."""
    for version in (CHAMPION, "v2"):
        site.publish(version)
    with Records(site.database) as records:
        records.store_shots([shot(f"image {number}".encode(), imgid=f"i{number}") for number in range(3)])
        records.store_predictions([predicted(imgid=f"i{number}", model=CHAMPION) for number in range(3)])
        records.mark_alert_sent([records.pending_alerts()[0].id])
        records.add_review("fab1", "cam1", "i1", label="Loc", reviewer="kim")
        records.set_threshold(0.9, "fab1")
        records.set_rollout("v2", author="kim")
        records.set_rollout(CHAMPION, candidate="v2", share=0.1, author="kim")
    site.send(
        [
            ("$MQTT.msgs.fabwafer.fab1.cam1.img.i9", b"of a device", {"Nmqtt-Pub": "1"}),
            ("fabwafer-images.fab1.cam1.i8", b"image", {MESSAGE_ID: "abc"}),
            ("fabwafer-predictions.cluster.fab1.cam1.i7", b"prediction", {MESSAGE_ID: "def"}),
            ("fabwafer-dead.intake", b"letter", {MESSAGE_ID: "dead:1"}),
        ]
    )


def ok(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(result: Result) -> str:
    """The sentence that a command ends with."""
    assert isinstance(result.exception, Exception), result.output
    return str(result.exception)


def holdings(site: Site) -> dict[str, Any]:
    """All that a system holds, but for its devices."""
    with Records(site.database) as records:
        return {
            "wafers": list(records.wafers()),
            "images": [records.image(one.fab, one.camera, one.imgid) for one in records.wafers()],
            "alerts": records.pending_alerts(),
            "thresholds": records.thresholds(),
            "drawings": records.drawings(),
            "rollouts": records.rollouts(),
            "versions": [name for name in open_store(site.store).names() if name != "shipped"],
            "messages": site.messages(),
        }


@pytest.mark.usefixtures("device_auth")
def test_all_that_a_system_holds_is_restored_into_another(tmp_path: Path, site: Site, another: Site) -> None:
    fill(site)
    devices = [site.add_device("fab1", camera) for camera in ("cam1", "cam2")]
    before = holdings(site)
    assert len(before["messages"]) == 4
    assert "4 unprocessed messages, 2 devices" in ok(site.backup(tmp_path / "backup"))
    assert holdings(site) == before

    shown = ok(another.restore(tmp_path / "backup"))

    assert "restored" in shown
    assert holdings(another) == before
    assert another.devices() == site.devices()
    for credentials in devices:
        with Camera(another.server.mqtt_url, credentials.user, credentials.password):
            pass


def test_a_later_backup_writes_images_and_versions_only_once(tmp_path: Path, site: Site, another: Site) -> None:
    folder = tmp_path / "backup"
    fill(site)
    ok(site.backup(folder))
    first = set(BackupFolder(folder).checked_manifest().files)
    with Records(site.database) as records:
        records.store_shots([shot(b"a new image", imgid="new")])
    site.publish("v3")

    assert "1 new images" in ok(site.backup(folder))

    manifest = BackupFolder(folder).checked_manifest()
    second = set(manifest.files)
    kept = {name for name in first if name.startswith(("images/", "models/"))}
    assert kept <= second
    assert {name.partition("/")[0] for name in first - second} == {"bus", "records"}
    assert {name for name in second - first if name.startswith("models/")} == {
        name for name in second if name.startswith(f"{manifest.models['v3']}/")
    }
    on_disk = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert on_disk == {*second, MANIFEST, ".fabwafer-backup"}
    ok(another.restore(folder))
    assert holdings(another) == holdings(site)


def test_what_is_deleted_by_age_leaves_the_backup_with_the_last_image_of_its_archive(
    tmp_path: Path, site: Site
) -> None:
    folder = tmp_path / "backup"
    with Records(site.database) as records:
        records.store_shots([shot(imgid="old", received=1)])
        ok(site.backup(folder))
        assert list((folder / "images").iterdir())
        records.forget_images(received_before=2)
        ok(site.backup(folder))
    assert list((folder / "images").iterdir()) == []


KILLED = """
import os, signal, sys
from fabwafer_bridge.backup import Backup
from fabwafer_bridge.commands.backup import app

setattr(Backup, sys.argv.pop(1), lambda *_: os.kill(os.getpid(), signal.SIGKILL))
app()
"""
"""Runs a backup that is killed at the step that its first argument names."""


@pytest.mark.parametrize("step", ["add_records", "add_models", "commit"])
def test_a_backup_that_is_killed_leaves_the_one_before_as_it_was(
    tmp_path: Path, site: Site, another: Site, step: str
) -> None:
    folder = tmp_path / "backup"
    fill(site)
    before = holdings(site)
    ok(site.backup(folder))
    with Records(site.database) as records:
        records.store_shots([shot(b"a new image", imgid="new")])

    done = subprocess.run([sys.executable, "-c", KILLED, step, folder], env=os.environ | site.env, check=False)
    assert done.returncode == -signal.SIGKILL

    ok(another.restore(folder))
    assert holdings(another) == before
    ok(site.backup(folder))  # and removes what the killed one left
    listed = set(BackupFolder(folder).checked_manifest().files)
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} == {
        *listed,
        MANIFEST,
        ".fabwafer-backup",
    }


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, Path.unlink])
def test_a_damaged_backup_is_refused_before_anything_is_restored(
    tmp_path: Path, site: Site, harm: Callable[[Path], None]
) -> None:
    folder = tmp_path / "backup"
    fill(site)
    site.add_device("fab1", "cam1")
    ok(site.backup(folder))
    names = list(BackupFolder(folder).checked_manifest().files)
    assert {name.partition("/")[0] for name in names} == {"records", "images", "bus", "models"}
    for name in names:
        if not (folder / name).stat().st_size:
            continue
        shutil.copy(folder / name, tmp_path / "whole")
        harm(folder / name)
        for more in ([], ["--check"]):
            sentence = refused(site.restore(folder, *more))
            assert sentence.startswith(f"the backup in {folder} is damaged: {name}: ")
        shutil.copy(tmp_path / "whole", folder / name)
    ok(site.restore(folder, "--check"))


def test_images_and_versions_that_are_missing_in_the_folder_are_written_again(
    tmp_path: Path, site: Site, another: Site
) -> None:
    folder = tmp_path / "backup"
    fill(site)
    ok(site.backup(folder))
    manifest = BackupFolder(folder).checked_manifest()
    for name in manifest.files:
        if name.startswith("images/") or name.endswith("/v2/card.json"):
            (folder / name).unlink()
    assert "3 new images" in ok(site.backup(folder))
    ok(another.restore(folder))
    assert holdings(another) == holdings(site)


def test_a_backup_without_damage_is_checked_without_a_system(tmp_path: Path, site: Site) -> None:
    ok(site.backup(tmp_path / "backup"))
    result = CliRunner().invoke(restore_command.app, [str(tmp_path / "backup"), "--check"])
    assert "is whole" in ok(result)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tables": "0_2_001"}, "tables of version 0_2_001; this program knows .* then upgrade"),
        ({"tables": "9_0_001"}, "tables of version 9_0_001"),
        ({"format": 2}, "damaged, or of another version of fabwafer: format"),
        ({"files": {"../../etc/passwd": {"size": 1, "sha256": ""}}}, "expected files in records"),
    ],
)
def test_a_backup_that_this_program_does_not_understand_is_refused(
    tmp_path: Path, site: Site, change: dict[str, Any], sentence: str
) -> None:
    folder = tmp_path / "backup"
    ok(site.backup(folder))
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(BackupError, match=sentence):
        Restore(BackupFolder(folder), print)


def test_a_folder_without_a_backup_is_named(tmp_path: Path) -> None:
    assert refused(CliRunner().invoke(restore_command.app, [str(tmp_path)])) == (
        f"there is no backup in {tmp_path}: expected a file manifest.json"
    )


def test_a_system_that_is_not_empty_is_left_as_it_is(tmp_path: Path, site: Site, another: Site) -> None:
    fill(site)
    ok(site.backup(tmp_path / "backup"))
    with Records(another.database) as records:
        records.store_shots([shot(imgid="mine")])
    another.send([("fabwafer-images.fab1.cam1.mine", b"mine", {})])
    store = open_store(another.store)
    tiny_models.make(store.work_folder("v2"), "v2", seed=7)
    store.publish("v2")
    before = holdings(another)

    assert refused(another.restore(tmp_path / "backup")) == (
        "a backup is restored into an empty system only, here are: 1 wafers in the records, 1 shots in the records, "
        f"1 messages in IMAGES, another version v2 in the model store {another.store}"
    )
    assert holdings(another) == before


def test_a_restore_that_was_interrupted_after_the_records_is_taken_up_again(
    tmp_path: Path, site: Site, another: Site
) -> None:
    fill(site)
    ok(site.backup(tmp_path / "backup"))
    first = Restore(BackupFolder(tmp_path / "backup"), print)
    store = open_store(another.store)
    first.add_models(store)
    with Records(another.database) as records:
        first.add_records(records)
        for pending in records.pending_alerts():  # the bridge sends them as soon as they are there
            records.mark_alert_sent([pending.id])

    assert "the records are there already" in ok(another.restore(tmp_path / "backup"))
    assert holdings(another) == holdings(site) | {"alerts": []}


@pytest.mark.usefixtures("device_auth")
def test_a_device_that_is_there_already_keeps_its_password_and_is_named(
    tmp_path: Path, site: Site, another: Site
) -> None:
    site.add_device("fab1", "cam1")
    new = another.add_device("fab1", "cam1")
    ok(site.backup(tmp_path / "backup"))

    assert "device fab1.cam1 was here already" in ok(another.restore(tmp_path / "backup"))
    with Camera(another.server.mqtt_url, new.user, new.password):
        pass


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, site: Site) -> None:
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own" / "images" / "holiday.jpg").write_bytes(b"x")
    assert "holds a folder images that is of no backup" in refused(site.backup(tmp_path / "own"))
    assert (tmp_path / "own" / "images" / "holiday.jpg").exists()


def test_a_system_just_set_up_does_not_take_the_place_of_a_backup_that_is_to_be_restored(
    tmp_path: Path, site: Site, another: Site
) -> None:
    fill(site)
    ok(site.backup(tmp_path / "backup"))
    before = (tmp_path / "backup" / MANIFEST).read_text()
    assert "is of another system: restore it into this one, or name another" in refused(
        another.backup(tmp_path / "backup")
    )
    assert (tmp_path / "backup" / MANIFEST).read_text() == before

    ok(another.restore(tmp_path / "backup"))
    assert "0 new images" in ok(another.backup(tmp_path / "backup"))


def test_two_backups_into_one_folder_do_not_mix(tmp_path: Path, site: Site) -> None:
    with BackupFolder(tmp_path / "backup").locked():
        assert refused(site.backup(tmp_path / "backup")).startswith("another backup is being written to ")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, site: Site) -> None:
    (tmp_path / "file").write_text("")
    assert refused(site.backup(tmp_path / "file")).startswith(f"cannot write the backup to {tmp_path / 'file'}: ")


def test_a_backup_for_which_there_is_no_room_leaves_the_one_before_and_takes_none(
    tmp_path: Path, site: Site, small_disk: SmallDisk
) -> None:
    folder = small_disk.path / "backup"
    fill(site)
    ok(site.backup(folder))
    with Records(site.database) as records:
        records.store_shots([shot(os.urandom(1 << 20), imgid=f"large{number}") for number in range(3)])
    small_disk.fill(leave=2 << 20)
    before = small_disk.free

    assert refused(site.backup(folder)) == f"cannot write the backup to {folder}: No space left on device"

    assert small_disk.free >= before
    BackupFolder(folder).checked_manifest()
    small_disk.empty()
    assert "3 new images" in ok(site.backup(folder))


def test_a_version_that_cannot_be_had_is_named_and_all_else_is_in_the_backup(
    tmp_path: Path, site: Site, another: Site
) -> None:
    fill(site)
    damage(Path(site.store) / "versions" / "v2" / "tiny.onnx")
    sentence = refused(site.backup(tmp_path / "backup"))
    assert sentence.startswith("the backup is written, but not with all: the version v2 in ")
    ok(another.restore(tmp_path / "backup"))
    assert open_store(another.store).names() == ["shipped", CHAMPION]


def test_a_store_that_does_not_answer_keeps_no_record_from_the_backup_and_its_versions_stay(
    tmp_path: Path, site: Site, another: Site
) -> None:
    folder = tmp_path / "backup"
    fill(site)
    ok(site.backup(folder))
    with Records(site.database) as records:
        records.store_shots([shot(b"a new image", imgid="new")])
    (tmp_path / "file").write_text("")
    away = Site(site.server, site.database, str(tmp_path / "file"), site.inference)

    assert "cannot be used: Not a directory" in refused(away.backup(folder))

    ok(another.restore(folder))
    assert holdings(another) == holdings(site)


def test_a_store_that_is_not_mounted_leaves_the_versions_of_the_backup(
    tmp_path: Path, site: Site, another: Site
) -> None:
    folder = tmp_path / "backup"
    fill(site)
    ok(site.backup(folder))
    unmounted = Site(site.server, site.database, str(tmp_path / "nothing"), site.inference)

    assert "is empty" in refused(unmounted.backup(folder))

    ok(another.restore(folder))
    assert holdings(another) == holdings(site)


def test_a_backup_that_cannot_tell_which_system_it_is_of_is_not_overwritten(tmp_path: Path, site: Site) -> None:
    fill(site)
    ok(site.backup(tmp_path / "backup"))
    [file] = (tmp_path / "backup").rglob("rollouts.ndjson")
    file.write_bytes(file.read_bytes()[:-2] + b"?\n")
    assert "it cannot be told whether it is of this system" in refused(site.backup(tmp_path / "backup"))


def test_a_champion_that_is_not_in_the_store_is_named(tmp_path: Path, site: Site) -> None:
    with Records(site.database) as records:
        records.set_rollout("v9", author="kim")
    assert "version v9, which the records name, is not in the model store" in refused(site.backup(tmp_path / "backup"))


def test_versions_come_from_a_bucket_and_go_into_one(tmp_path: Path, site: Site, another: Site, bucket: Bucket) -> None:
    site.store, another.store = f"{bucket.url}/here", f"{bucket.url}/there"
    fill(site)
    ok(site.backup(tmp_path / "backup"))
    assert "0 new images" in ok(site.backup(tmp_path / "backup"))
    ok(another.restore(tmp_path / "backup"))
    assert open_store(another.store).names() == [CHAMPION, "v2"]
    assert open_store(another.store).published("v2") == open_store(site.store).published("v2")


class Scripted:
    """A model server whose versions follow each other; at None it does not answer."""

    def __init__(self, *versions: str | None) -> None:
        self.left = list(versions)

    async def classify(self, images: Sequence[bytes], colours: Sequence[StatedColours | None] = ()) -> list[Answer]:
        version = self.left.pop(0)
        if version is None:
            raise ModelServerError("no answer")
        return [Answer("", 0, {}, None, False, None, None, "", [], None, version, "")]

    async def healthy(self) -> bool:
        return True


@pytest.fixture
def restore(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Restore, Records, list[str]]]:
    """A restore, records whose champion is v2, and what is shown."""
    monkeypatch.setattr("fabwafer_bridge.restore.ASK_EVERY", 0)
    ok(site.backup(tmp_path / "backup"))
    shown: list[str] = []
    running = Restore(BackupFolder(tmp_path / "backup"), shown.append)
    shown.clear()
    with Records(site.database) as records:
        records.set_rollout("v2", author="kim")
        yield running, records, shown


def test_the_champion_is_waited_for_until_no_other_version_answers_any_more(
    restore: tuple[Restore, Records, list[str]],
) -> None:
    running, records, shown = restore
    server = Scripted("v1", "v1", None, "v2", "v2", "v1", *["v2"] * 6)
    asyncio.run(running.until_champion_serves(server, records))
    assert server.left == ["v2"]
    assert shown == [
        "waiting for the model v2 to serve; now it is v1",
        "waiting for the model v2 to serve; now it is nothing: no answer",
        "waiting for the model v2 to serve; now it is v1",
    ]


def test_a_champion_that_does_not_come_is_not_waited_for_for_ever(
    restore: tuple[Restore, Records, list[str]],
) -> None:
    running, records, shown = restore
    asyncio.run(running.until_champion_serves(Scripted("v1"), records, seconds=-1))
    assert shown[-1] == "the model v2 does not serve yet; what comes is predicted by what does"
