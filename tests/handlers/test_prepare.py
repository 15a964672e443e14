"""What a pod that serves starts with: the version that its annotation names, from either store, for either server."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fabwafer.models.card import describe_file, read_card, write_card
from fabwafer.models.shipped import shipped_store
from fabwafer.models.store import FolderStore, open_store
from fabwafer_handlers.prepare import prepare
from fabwafer_local import torchserve
from tests.support import tiny_models
from tests.support.model_servers import KServe, TorchServe, b64, image, post, v2
from tests.support.object_store import Bucket
from tests.support.running import as_in_a_cluster, wait_until


@dataclasses.dataclass(frozen=True)
class Pod:
    """The init container of a pod: its version file, its folder, its store."""

    top: Path
    store: str

    @property
    def out(self) -> Path:
        return self.top / "models"

    @property
    def version_file(self) -> Path:
        return self.top / "model-version"

    @property
    def termination_log(self) -> Path:
        return self.top / "termination-log"

    @property
    def log(self) -> Path:
        return self.top / "log"

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fabwafer_handlers.prepare", "--version-file", str(self.version_file)]
        command += ["--out", str(self.out), "--termination-log", str(self.termination_log)]
        with self.log.open("wb") as log:
            return subprocess.Popen(command, env=os.environ | {"FABWAFER_MODEL_STORE": self.store}, stderr=log)

    def run(self, version: str) -> int:
        self.version_file.write_text(version)
        return self.start().wait(120)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store of either kind with the versions v1 and v2."""
    if request.param == "bucket":
        bucket: Bucket = request.getfixturevalue("bucket")
        address = bucket.url
    else:
        address = str(tmp_path / "store")
    opened = open_store(address, tmp_path / "work")
    for version in ("v1", "v2"):
        tiny_models.make(opened.work_folder(version), version)
        opened.publish(version)
    return address


@pytest.fixture
def pod(tmp_path: Path) -> Callable[[str], Pod]:
    """A pod with an empty folder, whose annotation names no version yet."""

    def make(store: str) -> Pod:
        made = Pod(tmp_path / "pod", store)
        made.out.mkdir(parents=True)
        made.version_file.write_text("")
        made.termination_log.write_text("")
        return made

    return make


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to end with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_the_version_that_is_named_is_put_beside_the_server(store: str, pod: Callable[[str], Pod]) -> None:
    init = pod(store)
    assert init.run("v2\n") == 0, init.log.read_text()
    assert sorted(file.relative_to(init.out).as_posix() for file in init.out.rglob("*") if file.is_file()) == [
        "config.properties",
        "log4j2.xml",
        "wafer.mar",
        "wafer/card.json",
        "wafer/tiny.onnx",
    ]
    assert read_card(init.out / "wafer").version == "v2"
    config = (init.out / "config.properties").read_text()
    assert config == (shipped_store() / "config.properties").read_text().replace("/mnt/models", str(init.out))
    assert init.run("v1") == 0  # the container runs again in the same pod
    assert read_card(init.out / "wafer").version == "v1"


def test_what_was_prepared_is_served_by_both_servers(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    tiny_models.make(store.work_folder("v1"), "v1")
    store.publish("v1")
    out = tmp_path / "models"
    out.mkdir()
    prepare(store, "v1", out, print)
    by_torchserve = TorchServe(tmp_path / "torchserve", out / "wafer", local=False)
    config = by_torchserve.directory / torchserve.CONFIG_FILE
    ours = (out / "config.properties").read_text()
    # The ports of the test's server, all else as it was prepared.
    ports = dict(re.findall(r"(?m)^(\w+_address|grpc_\w+_port)=(.*)$", config.read_text()))
    config.write_text(torchserve.configuration(ours, ports))
    as_in_a_cluster(by_torchserve.directory)
    for server in (by_torchserve, KServe(tmp_path / "kserve", out / "wafer")):
        try:
            server.start()
            status, answer = post(f"{server.url}/v2/models/wafer/infer", v2(b64(image())))
            assert (status, answer["model_version"]) == (200, "v1")
        finally:
            server.stop()


def test_while_no_version_is_named_it_waits_and_says_so_once(
    tmp_path: Path, pod: Callable[[str], Pod], ended: list[subprocess.Popen[bytes]]
) -> None:
    init = pod(str(tmp_path / "store"))
    ended.append(init.start())
    sentence = f"{init.version_file} is empty: waiting for the rollout to name the version that this pod serves\n"
    wait_until(lambda: sentence in init.log.read_text(), init.log.read_text)
    work = FolderStore(Path(init.store))
    tiny_models.make(work.work_folder("v1"), "v1")
    work.publish("v1")
    init.version_file.write_text("v1")
    assert ended[0].wait(60) == 0
    assert init.log.read_text() == f"{sentence}model v1 is prepared in {init.out}\n"


def test_while_it_waits_a_sigterm_ends_it(
    tmp_path: Path, pod: Callable[[str], Pod], ended: list[subprocess.Popen[bytes]]
) -> None:
    init = pod(str(tmp_path / "store"))
    ended.append(init.start())
    wait_until(lambda: "is empty" in init.log.read_text(), init.log.read_text)
    ended[0].terminate()
    assert ended[0].wait(60) == 143


def test_a_store_that_is_away_is_waited_for(
    tmp_path: Path, pod: Callable[[str], Pod], ended: list[subprocess.Popen[bytes]]
) -> None:
    init = pod(str(tmp_path / "mount" / "store"))
    (tmp_path / "mount").write_text("no folder")
    init.version_file.write_text("v1")
    ended.append(init.start())
    sentence = f"the model store {init.store} cannot be used: Not a directory; trying again\n"
    wait_until(lambda: sentence in init.log.read_text(), init.log.read_text)
    store = FolderStore(tmp_path / "back" / "store")
    tiny_models.make(store.work_folder("v1"), "v1")
    store.publish("v1")
    (tmp_path / "link").symlink_to("back")
    (tmp_path / "link").replace(tmp_path / "mount")  # in one step: a store that is there and empty has no such version
    assert ended[0].wait(60) == 0
    assert init.log.read_text() == f"{sentence}model v1 is prepared in {init.out}\n"


def test_a_version_that_cannot_serve_ends_it_with_the_reason(tmp_path: Path, pod: Callable[[str], Pod]) -> None:
    init = pod(str(tmp_path / "store"))
    versions = tmp_path / "store" / "versions"
    for version in ("damaged", "broken"):  # publishing refuses both
        tiny_models.make(versions / version, version)
        (versions / version / "tiny.onnx").write_bytes(b"no network")
    files = dict.fromkeys(("int8", "float32"), describe_file(versions / "broken" / "tiny.onnx"))
    write_card(versions / "broken", read_card(versions / "broken").model_copy(update={"files": files}))
    for version, reason in (
        ("gone", f"there is no version gone in {init.store}"),
        ("damaged", f"the version damaged in {init.store} is damaged: the model file "),
        ("broken", f"the version broken in {init.store} cannot serve: ONNX Runtime cannot load tiny.onnx: "),
        ("../v1", "expected a version of letters, digits, dots, dashes and underscores, got '../v1'"),
    ):
        assert init.run(version) == 1
        assert init.log.read_text().startswith(reason)
        assert init.termination_log.read_text() == init.log.read_text().rstrip("\n")
        assert not (init.out / "wafer.mar").exists()


def test_without_the_volume_of_the_annotation_it_says_what_is_missing(
    tmp_path: Path, pod: Callable[[str], Pod]
) -> None:
    init = pod(str(tmp_path / "store"))
    init.version_file.unlink()
    assert init.start().wait(60) == 1
    assert f"No such file or directory: '{init.version_file}'" in init.log.read_text()
