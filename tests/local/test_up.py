"""`fabwafer up`: everything on one machine, by one command, and nothing left behind."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fabwafer.commands.system import SYSTEM_FILE, sqlite_url
from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.models.card import read_card
from fabwafer.models.key_file import authorization
from fabwafer.models.shipped import default_model
from fabwafer.models.store import FolderStore
from fabwafer.records import migrate
from fabwafer_local.supervisor import PARTS_FILE
from tests.support import tiny_models
from tests.support.devices import Device
from tests.support.running import unready, wait_until
from tests.support.up import Up, fabwafer, left, records


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    files = []
    for number, (_, grid) in enumerate(sample(seed=9, n=4)):
        file = tmp_path / f"wafer {number}.png"
        file.write_bytes(encode(grid, scale=3))
        files.append(file)
    return files


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One system for all tests that leave it well."""
    with Up(tmp_path_factory.mktemp("up") / "data", "--samples", "3") as running:
        yield running.running()


def test_samples_come_back_as_predictions_and_stand_in_the_records(up: Up) -> None:
    up.wait_for("(cluster)", count=3)
    for name in ("mqtt://127.0.0.1:", "nats://127.0.0.1:", "/v2/models/wafer/infer", "/metrics"):
        assert name in up.output
    # Images and predictions are recorded by two consumers.
    wait_until(lambda: [len(one["predictions"]) for one in records(up, "--fab", "demo")] == [1, 1, 1], "three records")
    found = records(up, "--fab", "demo")
    assert [one["imgid"] for one in found] == ["001-Center", "002-Donut", "003-Edge-Loc"]
    assert all(one["predictions"][0]["source"] == "cluster" for one in found)
    assert set(found[0]) >= {"fab", "camera", "imgid", "timestamp", "predictions"}
    assert set(found[0]["predictions"][0]) >= {"source", "model", "prediction", "probability", "wafer", "alert"}


def test_a_camera_that_is_added_can_send_and_one_that_is_revoked_cannot(
    up: Up, images: list[Path], tmp_path: Path
) -> None:
    data = ("--data", str(up.data))
    added = fabwafer("device", "add", "fabx", "cam1", *data, "--json", cwd=tmp_path)
    assert added.returncode == 0, added.stderr
    credentials = json.loads(added.stdout)
    assert set(credentials) == {"user", "password"}
    sign_in = ("--user", credentials["user"], "--password", credentials["password"])
    sent = fabwafer(
        "send", *map(str, images), "--fab", "fabx", "--camera", "cam1", *sign_in, *data, "--json", cwd=tmp_path
    )
    assert sent.returncode == 0, sent.stderr
    lines = [json.loads(line) for line in sent.stdout.splitlines()]
    assert sorted(line["imgid"] for line in lines) == ["wafer_0", "wafer_1", "wafer_2", "wafer_3"]
    assert all(line["stored"] and line["prediction"] for line in lines)
    assert fabwafer("device", "revoke", "fabx", "cam1", *data, cwd=tmp_path).returncode == 0
    refused = fabwafer("send", str(images[0]), "--fab", "fabx", "--camera", "cam1", *sign_in, *data, cwd=tmp_path)
    assert refused.returncode == 3
    assert "revoked" in refused.stderr


def test_send_needs_no_credentials_for_the_systems_own_camera(up: Up, images: list[Path], tmp_path: Path) -> None:
    sent = fabwafer("send", str(images[0]), "--data", str(up.data), cwd=tmp_path)
    assert (sent.returncode, sent.stderr) == (0, "")
    assert sent.stdout.startswith(f"{images[0]}: ")
    assert "%" in sent.stdout


def test_the_model_of_a_later_release_is_reported_and_does_not_serve(tmp_path: Path) -> None:
    def versions() -> dict[str, list[str]]:
        shown = fabwafer("model", "list", "--json", "--data", str(tmp_path / "data"), cwd=tmp_path)
        return {one["version"]: one["states"] for one in map(json.loads, shown.stdout.splitlines())}

    releases = [tiny_models.make(tmp_path / version, version) for version in ("r1", "r2")]
    with Up(tmp_path / "data", "--samples", "0", FABWAFER_MODEL=str(releases[0])) as first:
        first.running()
        assert versions() == {"r1": ["champion"]}
        assert first.stop() == 0
    with Up(tmp_path / "data", "--samples", "0", FABWAFER_MODEL=str(releases[1])) as second:
        second.running()
        second.wait_for("model r2 came with this release; to let it serve: fabwafer model promote r2")
        assert versions() == {"r1": ["champion"], "r2": []}
        url = f"{second.system.inference_url}/predictions/wafer"
        token = authorization(second.system.inference_key_file, "inference")
        with urllib.request.urlopen(urllib.request.Request(url, headers=token)) as answer:
            assert json.load(answer)["versions"] == ["r1"]
        assert second.stop() == 0


def test_a_promoted_version_answers_and_after_a_rollback_the_shipped_one_does(
    up: Up, images: list[Path], tmp_path: Path
) -> None:
    data = ("--data", str(up.data))
    store = FolderStore(up.data / "model-store")
    tiny_models.make(store.work_folder("tiny-2"), "tiny-2")
    store.publish("tiny-2")
    shipped = read_card(default_model()).version
    before = {one["imgid"] for one in records(up, "--fab", "demo")}
    for image, words, version in zip(
        images[2:], (("promote", "tiny-2"), ("rollback",)), ("tiny-2", shipped), strict=True
    ):
        told = fabwafer("model", *words, *data, cwd=tmp_path)
        assert told.returncode == 0, told.stderr
        up.wait_for(f"model {version} serves from now on")
        sent = fabwafer("send", str(image), *data, cwd=tmp_path)
        assert sent.returncode == 0, sent.stderr

        def models(seen: frozenset[str] = frozenset(before)) -> dict[str, list[str]]:
            """Of the wafers that are new."""
            found = [one for one in records(up, "--fab", "demo") if one["imgid"] not in seen]
            return {one["imgid"]: [said["model"] for said in one["predictions"]] for one in found}

        wait_until(lambda: list(models().values()) not in ([], [[]]), "the record with its prediction")
        assert list(models().values()) == [[version]]
        before |= set(models())


def test_a_model_that_somebody_removed_is_repaired_and_the_bridge_ready_again(up: Up) -> None:
    config = (up.data / "torchserve" / "config.properties").read_text()
    (management,) = [line for line in config.splitlines() if line.startswith("management_address=")]
    url = f"{management.partition('=')[2]}/models/wafer"
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"))
    shown = len(up.output)
    token = authorization(up.system.inference_key_file, "management")

    def removed() -> bool:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=token)).close()
        except urllib.error.HTTPError as error:
            if error.code != 403:  # that means that the version before, of another test, is still there
                raise
            return False
        return True

    wait_until(removed, "the model can be removed")
    wait_until(lambda: "serves from now on, before it none" in up.output[shown:], lambda: up.output[shown:])
    wait_until(lambda: unready(up.system.metrics_url) is None, lambda: str(unready(up.system.metrics_url)))


def test_a_candidate_answers_its_share_beside_the_champion_and_nobody_hears_it(
    up: Up, images: list[Path], tmp_path: Path
) -> None:
    data = ("--data", str(up.data))
    store = FolderStore(up.data / "model-store")
    tiny_models.make(store.work_folder("tiny-3"), "tiny-3", seed=3)
    store.publish("tiny-3")
    told = fabwafer("model", "candidate", "tiny-3", "--share", "1", *data, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    up.wait_for("model tiny-3 is on trial from now on")
    wafer = tmp_path / "on-trial.png"
    wafer.write_bytes(images[0].read_bytes())
    sent = fabwafer("send", str(wafer), *data, "--json", cwd=tmp_path)
    assert json.loads(sent.stdout)["model"] == read_card(default_model()).version

    def said() -> dict[str, bool]:
        return {
            prediction["model"]: prediction.get("shadow", False)
            for one in records(up, "--fab", "demo")
            if one["imgid"] == "on-trial"
            for prediction in one["predictions"]
        }

    wait_until(lambda: len(said()) == 2, "the candidate's word")
    assert said() == {read_card(default_model()).version: False, "tiny-3": True}
    shown = fabwafer("model", "trial", *data, "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["images"] == 1
    assert fabwafer("model", "candidate", "--none", *data, cwd=tmp_path).returncode == 0


def test_send_refuses_what_is_no_image_by_name(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    refused = fabwafer("send", str(file), "--data", str(up.data), cwd=tmp_path)
    assert refused.returncode == 1
    assert str(file) in refused.stderr
    assert "PNG" in refused.stderr


def test_a_refused_message_is_listed_and_can_be_replayed(up: Up, tmp_path: Path) -> None:
    data = ("--data", str(up.data))
    camera = json.loads((up.data / "camera.json").read_text())
    with Device(up.system.mqtt_url, camera["user"], camera["password"]) as device:
        assert device.publish("fabwafer/demo/camera1/img/broken", "{")

    def letters() -> list[dict[str, Any]]:
        shown = fabwafer("dead-letters", *data, "--json", cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        return [json.loads(line) for line in shown.stdout.splitlines()]

    wait_until(lambda: len(letters()) == 1, "the dead letter")
    (letter,) = letters()
    assert set(letter) >= {"subject", "reason", "time", "size"}
    assert (letter["subject"], letter["size"]) == ("fabwafer.demo.camera1.img.broken", 1)
    # The options may stand before or after the verb; without ids all are replayed.
    for arguments in (("replay", str(letter["id"]), *data), (*data, "replay")):
        (before,) = letters()
        replayed = fabwafer("dead-letters", *arguments, cwd=tmp_path)
        assert replayed.returncode == 0, replayed.stderr
        wait_until(lambda before=before: [one["id"] for one in letters()] not in ([], [before["id"]]), "refused again")  # type: ignore[misc]
    missing = fabwafer("dead-letters", "replay", "4711", *data, cwd=tmp_path)
    assert missing.returncode == 1
    assert "4711" in missing.stderr


def test_a_second_system_on_the_same_data_is_refused(up: Up, tmp_path: Path) -> None:
    refused = fabwafer("up", "--data", str(up.data), cwd=tmp_path)
    assert refused.returncode == 1
    assert "already" in refused.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = fabwafer("up", "--data", str(tmp_path / "data"), "--mqtt", port, cwd=tmp_path)
    assert refused.returncode == 1
    assert f"--mqtt {port}" in refused.stderr


def test_two_systems_run_side_by_side_and_a_part_that_dies_is_started_again(up: Up, tmp_path: Path) -> None:
    with Up(tmp_path / "second", "--samples", "0") as second:
        second.running()
        assert second.system.mqtt_url != up.system.mqtt_url
        (image,) = (tmp_path / "i.png",)
        image.write_bytes(encode(sample(1, 1)[0][1]))
        for part in ("bridge", "NATS server", "device-auth", "model server"):
            os.kill(second.part(part), signal.SIGKILL)
            second.wait_for(f"{part} died (SIGKILL): starting it again")
        sent = fabwafer("send", str(image), "--data", str(second.data), "--wait", "90", "--json", cwd=tmp_path)
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout)["prediction"]
        sessions = second.sessions()
        assert second.stop(signal.SIGINT) == 0
    assert left(second, sessions) == []
    assert not (second.data / SYSTEM_FILE).exists()


def test_the_next_up_cleans_what_a_killed_one_left_and_the_records_stay(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--samples", "300") as first:
        first.running().wait_for("(cluster)")
        wait_until(lambda: bool(records(first)), "a record")
        sessions = first.sessions()
        first.process.kill()
        first.process.wait()
    assert any(" send " in line for line in left(first, sessions))
    kept = {one["imgid"] for one in records(first)}
    # Whoever lost or changed the password of the samples' camera still has a system that starts.
    camera = json.loads((first.data / "camera.json").read_text())
    (first.data / "camera.json").write_text(json.dumps(camera | {"password": "changed"}))
    with Up(first.data, "--samples", "2") as second:
        second.wait_for("processes that a system that was killed had left")
        second.running()
        assert not sessions & {os.getsid(process.pid) for process in psutil.process_iter() if process.pid > 1}
        second.wait_for("(cluster)")
        sessions = second.sessions()
        assert second.stop() == 0
    assert left(second, sessions) == []
    assert kept <= {one["imgid"] for one in records(second)}


def test_nothing_that_a_device_sends_stops_the_view_or_the_stop(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--samples", "1") as running:
        running.running().wait_for("(cluster)")
        camera = json.loads((running.data / "camera.json").read_text())
        body = {
            "imgid": "x",
            "timestamp": 1,
            "fab": "demo",
            "camera": "camera1",
            "prediction": "Loc",
            "probability": 0.4,
        }
        with Device(running.system.mqtt_url, camera["user"], camera["password"]) as device:
            for changes in (
                {"prediction": "lo\0c\ud800"},
                {"imgid": "[/x]"},
                {"prediction": "[/bold] \x1b[2J"},
                {"prediction": "a line\nof its own"},
                {"source": "cluster"},
                {"probability": "1e999"},
            ):
                device.publish("fabwafer/demo/camera1/prediction/x", json.dumps(body | changes))
        running.wait_for("Loc 40% (device)")
        running.wait_for("[/bold] \\x1b[2J 40% (device)")
        running.wait_for("a line\\nof its own 40% (device)")
        sessions = running.sessions()
        assert running.stop() == 0
        assert "Traceback" not in running.output
    assert left(running, sessions) == []


def readable_by_others(data: Path) -> list[str]:
    """The files that others can read, who are not kept out of a folder on the way."""
    found = []
    for folder, folders, files in os.walk(data):
        here = Path(folder)
        folders[:] = [name for name in folders if (here / name).stat().st_mode & 0o077]
        found += [str(here / name) for name in files if (here / name).stat().st_mode & 0o077]
    return sorted(found)


def test_nobody_else_reads_the_data_directory_whatever_its_mode_was(tmp_path: Path) -> None:
    data = tmp_path / "data"
    outside = tmp_path / "outside"
    for folder in (data, data / "nats" / "jetstream", data / "logs", outside):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    (data / "nats" / "jetstream" / "old").write_text("from an earlier release")
    (data / "mine").write_text("not fabwafer's")
    (data / "samples").symlink_to(outside)
    migrate(sqlite_url(data))
    with Up(data, "--samples", "1") as running:
        running.running().wait_for("(cluster)")
        mine = [str(data / "mine")]
        assert readable_by_others(data) == mine
        files = [*data.iterdir(), *(data / "nats").rglob("*"), *(data / "logs").iterdir()]
        private = {path.name for path in files if path.is_file() and path.stat().st_mode & 0o777 == 0o600}
        assert private >= {"records.db", "records.db-wal", "system.json", "camera.json", "parts.json", "lock"}
        assert private >= {"nats.log", "nats.conf", "users.conf", "bridge.log", "model-server.log"}
        assert running.stop() == 0
    assert readable_by_others(data) == mine
    assert (data.stat().st_mode & 0o777, outside.stat().st_mode & 0o777) == (0o755, 0o755)


def test_records_that_are_no_database_are_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "records.db").write_text("no database at all, but long enough to be looked at as one\n" * 40)
    for command in (("up",), ("records",), ("threshold", "0.5"), ("migrate",)):
        refused = fabwafer(*command, "--data", str(data), cwd=tmp_path)
        assert refused.returncode == 1, command
        assert "Traceback" not in refused.stderr
        assert "database" in refused.stderr


def test_a_system_that_is_told_to_stop_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--samples", "0") as starting:
        wait_until((starting.data / PARTS_FILE).exists, "the first part")
        sessions = starting.sessions()
        assert starting.stop() == 0
    assert left(starting, sessions) == []


def test_a_part_that_cannot_start_is_named_with_its_last_lines(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    with Up(tmp_path / "data", "--samples", "0", FABWAFER_MODEL=str(model)) as broken:
        assert broken.process.wait(timeout=120) == 1
    assert str(model) in broken.output
    assert "Traceback" not in broken.output


def test_a_system_whose_output_nobody_reads_any_more_goes_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with Up(tmp_path / "data", "--samples", "2", output=Path(f"/proc/self/fd/{writing}")) as running:
        os.close(writing)
        with os.fdopen(reading) as first_lines:
            while "Running after" not in first_lines.readline():
                pass
        wait_until(lambda: len(records(running)) == 2, "two records")
        sessions = running.sessions()
        assert running.process.poll() is None
        running.stop()
    assert left(running, sessions) == []
