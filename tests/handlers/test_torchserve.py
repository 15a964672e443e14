"""TorchServe as a local system runs it: started, killed, stopped, and refusing a wrong model."""

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from fabwafer.models.card import ModelRefusedError
from fabwafer.models.key_file import authorization
from fabwafer.models.shipped import shipped_store
from fabwafer_handlers.serve import PID_FILE
from fabwafer_local.supervisor import ServerSpec
from fabwafer_local.torchserve import (
    TorchServePorts,
    build_archive,
    configuration,
    load_at_start,
    loaded_at_start,
    prepare,
)
from tests.support import tiny_models
from tests.support.model_servers import TorchServe, b64, image, is_there, tensors, v2
from tests.support.running import wait_until

PORTS = TorchServePorts(1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """One server for all tests that leave it standing."""
    server = TorchServe(tmp_path_factory.mktemp("torchserve"), tiny_model)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def doomed_server(tiny_model: Path, tmp_path: Path) -> Iterator[TorchServe]:
    """A server of one test's own, that it ends."""
    server = TorchServe(tmp_path / "torchserve", tiny_model)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def worker(server: TorchServe) -> psutil.Process | None:
    """The Python process that holds the model, None while there is none."""
    try:
        children = psutil.Process(server.pid).children(recursive=True)
        return next((child for child in children if "model_service_worker.py" in " ".join(child.cmdline())), None)
    except psutil.NoSuchProcess:
        return None


def test_a_killed_worker_comes_back_and_answers(server: TorchServe) -> None:
    before = worker(server)
    assert before is not None
    before.kill()
    before.wait(10)
    wait_until(lambda: is_there(server.spec.ready_url, server.key_file), server.last_words)
    after = worker(server)
    assert after is not None
    assert after.pid != before.pid
    status, response = server.post("/v2/models/wafer/infer", v2(b64(image())))
    assert status == 200
    assert tensors(response)["wafer"].all()


def test_sigterm_to_the_process_that_was_started_leaves_nothing_behind(doomed_server: TorchServe) -> None:
    assert (doomed_server.spec.temporary / PID_FILE).read_text() == str(doomed_server.pid)
    java, python = psutil.Process(doomed_server.pid), worker(doomed_server)
    assert "java" in java.name()
    assert python is not None
    java.terminate()
    _, alive = psutil.wait_procs([java, python], timeout=30)
    assert not alive


def test_a_worker_ends_by_itself_when_its_server_was_killed(doomed_server: TorchServe) -> None:
    java, python = psutil.Process(doomed_server.pid), worker(doomed_server)
    assert python is not None
    java.kill()
    _, alive = psutil.wait_procs([java, python], timeout=30)
    assert not alive


def test_what_the_server_starts_can_be_told_by_its_temporary_folder(server: TorchServe) -> None:
    python = worker(server)
    assert python is not None
    for process in (psutil.Process(server.pid), python):
        assert process.environ()["TMPDIR"] == str(server.spec.temporary)


def test_it_listens_on_loopback_alone_and_on_the_ports_that_were_given(server: TorchServe) -> None:
    given = {int(port) for port in re.findall(r"(?m)^.*(?:address=\S+:|port=)(\d+)$", _config(server.spec.argv))}
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for connection in psutil.net_connections("tcp")
        if connection.pid == server.pid and connection.status == psutil.CONN_LISTEN and connection.laddr
    }
    assert listening == {("127.0.0.1", port) for port in given}
    assert len(given) == 5


def _config(argv: list[str]) -> str:
    return Path(argv[argv.index("--config") + 1]).read_text()


def test_requests_beyond_a_batch_and_rows_beyond_a_pass_are_all_answered(server: TorchServe) -> None:
    """A batch takes 8 requests, a pass of the network 64 images: one less, as many and one more of each."""
    text = b64(image())

    def ask(rows: int) -> int:
        status, response = server.post("/v2/models/wafer/infer", v2(*[text] * rows))
        assert status == 200
        return len(tensors(response)["label"])

    for at_once, rows in ((7, 1), (8, 1), (9, 1), (1, 63), (1, 64), (1, 65), (9, 30)):
        with ThreadPoolExecutor(at_once) as pool:
            assert list(pool.map(ask, [rows] * at_once)) == [rows] * at_once


def test_a_raw_image_is_answered_alone_and_a_bad_one_refused(server: TorchServe) -> None:
    path = "/predictions/wafer"
    status, answer = server.post(path, image(), "image/png")
    assert status == 200
    assert (answer["wafer"], answer["model_version"]) == (True, "tiny-1")
    status, answer = server.post(path, b"no image", "application/octet-stream")
    assert status == 400
    assert answer["error"].startswith("expected a PNG or JPEG image")
    assert server.post(path, b"", "image/png")[0] == 400


def test_a_get_says_which_model_answers(server: TorchServe) -> None:
    status, model = server.post("/predictions/wafer", None)
    assert status == 200
    assert (model["name"], model["versions"]) == ("wafer", ["tiny-1"])
    assert {output["name"] for output in model["outputs"]} == {
        output["name"] for output in server.post("/v2/models/wafer/infer", v2("x"))[1]["outputs"]
    }


def test_the_settings_in_the_archive_are_in_force(server: TorchServe) -> None:
    request = urllib.request.Request(
        f"{server.management}/models/wafer", headers=authorization(server.key_file, "management")
    )
    with urllib.request.urlopen(request) as response:
        (described,) = json.load(response)
    assert (described["batchSize"], described["maxBatchDelay"], described["minWorkers"]) == (8, 1, 1)
    assert described["maxRetryTimeoutInSec"] == 2_000_000  # by default it gives a worker up for good after 300 s
    assert described["jobQueueStatus"]["remainingCapacity"] > 900


def test_under_load_its_log_stays_short(server: TorchServe) -> None:
    before = server.log.stat().st_size
    for _ in range(50):
        server.post("/v2/models/wafer/infer", v2(b64(image()), "bad"))
    assert server.log.stat().st_size - before < 1000


def test_a_model_that_is_not_the_cards_is_refused_with_the_reason_in_the_log(tmp_path: Path) -> None:
    import zipfile

    server = TorchServe(tmp_path / "torchserve", tiny_models.make(tmp_path / "model"))
    (archive,) = (tmp_path / "torchserve").rglob("*.mar")
    with zipfile.ZipFile(archive) as good:
        content = {name: good.read(name) for name in good.namelist()}
    content["tiny.onnx"] += b"\0"
    with zipfile.ZipFile(archive, "w") as bad:
        for name, data in content.items():
            bad.writestr(name, data)
    try:
        server.spawn()
        wait_until(lambda: "ModelRefusedError" in server.log.read_text(), server.last_words)
        assert re.search(r"tiny\.onnx should have SHA-256 [0-9a-f]{64}, it has [0-9a-f]{64}", server.log.read_text())
    finally:
        server.stop()


def test_the_archive_is_built_once_for_each_model(tiny_model: Path, tmp_path: Path) -> None:
    archive = build_archive(tmp_path, tiny_model)
    built = archive.stat().st_mtime_ns
    assert build_archive(tmp_path, tiny_model) == archive
    assert archive.stat().st_mtime_ns == built
    other = build_archive(tmp_path, tiny_models.make(tmp_path / "other", "tiny-2", seed=1))
    assert {archive, other} == set(tmp_path.rglob("*.mar"))


def test_the_archive_of_the_next_start_can_be_changed(tiny_model: Path, tmp_path: Path) -> None:
    assert loaded_at_start(tmp_path) is None
    first, second = prepared(tmp_path, tiny_model), build_archive(tmp_path, tiny_models.make(tmp_path / "o", seed=1))
    assert loaded_at_start(tmp_path) == build_archive(tmp_path, tiny_model)
    load_at_start(tmp_path, second)
    assert loaded_at_start(tmp_path) == second
    second.unlink()
    assert loaded_at_start(tmp_path) is None
    assert prepared(tmp_path, tiny_model).temporary != first.temporary


def prepared(directory: Path, model: Path, workers: int = 1) -> ServerSpec:
    """The specification of a server that is not started."""
    spec = prepare(directory, build_archive(directory, model), PORTS, workers)
    spec.temporary.rmdir()
    return spec


def test_sockets_fit_however_long_the_data_directory_is(tiny_model: Path, tmp_path: Path) -> None:
    spec = prepared(tmp_path / ("d" * 120), tiny_model)
    assert len(os.fsencode(spec.temporary / ".ts.sock.9000")) < 60
    assert spec.env["TMPDIR"] == spec.env["TEMP"] == str(spec.temporary)


def test_only_what_a_machine_needs_differs_from_the_clusters_configuration(tiny_model: Path, tmp_path: Path) -> None:
    def settings(text: str) -> dict[str, str]:
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return dict(line.split("=", 1) for line in lines)

    spec = prepared(tmp_path, tiny_model, workers=3)
    ours = settings((shipped_store() / "config.properties").read_text())
    local = settings(_config(spec.argv))
    assert local.keys() - ours.keys() == {"token_expiration_min"}
    assert {name for name in ours if ours[name] != local[name]} == {
        "inference_address",
        "management_address",
        "metrics_address",
        "grpc_inference_port",
        "grpc_management_port",
        "model_store",
        "load_models",
        "default_workers_per_model",
        "disable_token_authorization",
        "enable_model_api",
    }
    assert (ours["enable_model_api"], local["disable_token_authorization"]) == ("false", "false")
    assert ours["management_address"].startswith("http://127.0.0.1:")
    assert local["default_workers_per_model"] == "3"


def test_settings_are_replaced_where_they_stand_and_added_where_they_are_missing() -> None:
    text = "# workers=9\nworkers=1\nstore=/a\n"
    assert configuration(text, {"workers": "2", "path": r"C:\new"}) == (
        "# workers=9\nworkers=2\nstore=/a\npath=C:\\\\new\n"
    )


def test_a_folder_without_a_model_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="expected a model card at"):
        build_archive(tmp_path / "data", tmp_path)


def test_a_model_whose_file_was_changed_gets_no_archive(tmp_path: Path) -> None:
    model = tiny_models.make(tmp_path / "model")
    (model / "tiny.onnx").write_bytes(b"something else")
    with pytest.raises(ModelRefusedError, match="should have SHA-256"):
        build_archive(tmp_path / "data", model)
    assert not list((tmp_path / "data").rglob("*.mar"))
    assert json.loads((model / "card.json").read_text())["version"] == "tiny-1"
