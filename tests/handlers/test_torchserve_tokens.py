"""Who reaches TorchServe's ports, and has no token, gets no answer and runs no code."""

import json
import stat
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from fabwafer.models.key_file import authorization
from fabwafer.models.model_server import ServerUnavailableError
from fabwafer_local import torchserve
from tests.support.model_servers import TorchServe, b64, image, post, tensors, v2
from tests.support.running import wait_until

_MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
_INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """A server as a local system runs it."""
    server = TorchServe(tmp_path_factory.mktemp("local"), tiny_model)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def cluster_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """A server as it is shipped for a cluster."""
    server = TorchServe(tmp_path_factory.mktemp("cluster"), tiny_model, local=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Intruder:
    """An archive whose code leaves a trace when TorchServe runs it."""

    def __init__(self, directory: Path) -> None:
        self.trace = directory / "trace"
        self.archive = directory / "intruder.mar"
        code = (
            f"from pathlib import Path\nPath({str(self.trace)!r}).write_text('ran')\ndef handle(data, context): pass\n"
        )
        manifest = {"runtime": "python", "model": {"modelName": "x", "modelVersion": "1", "handler": "intruder.py"}}
        with zipfile.ZipFile(self.archive, "w") as file:
            file.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
            file.writestr("intruder.py", code)
        self.directory = directory / "intruder"
        with zipfile.ZipFile(self.archive) as file:
            file.extractall(self.directory)


@pytest.fixture
def intruder(tmp_path: Path) -> Intruder:
    return Intruder(tmp_path)


def request(method: str, url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Send a request; return the status and the answer."""
    sent = urllib.request.Request(url, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(sent, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def call(port: int, method: str, *fields: tuple[int, str | int], token: Sequence[tuple[str, str]] = ()) -> Any:
    """Call a gRPC method with a message of these numbered fields; return the status code, or the answer's bytes."""
    message = b""
    for number, value in fields:
        if isinstance(value, int):
            message += bytes([number << 3, value])
        else:
            text = value.encode()
            assert len(text) < 1 << 14
            message += bytes([number << 3 | 2, len(text) & 0x7F | 0x80, len(text) >> 7]) + text
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            return channel.unary_unary(method)(message, timeout=60, metadata=token)
        except grpc.RpcError as error:
            return error.code()


def ports(server: TorchServe) -> dict[str, int]:
    """The gRPC ports of its configuration."""
    lines = (server.directory / torchserve.CONFIG_FILE).read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if line.startswith("grpc_"))
    return {name: int(found[f"grpc_{name}_port"]) for name in ("inference", "management")}


def test_a_registration_without_a_token_is_refused_over_http_and_runs_no_code(
    server: TorchServe, intruder: Intruder
) -> None:
    for url in (f"file://{intruder.archive}", f"file://{intruder.directory}", str(intruder.directory)):
        for headers in ({}, {"Authorization": "Bearer guessed1"}, authorization(server.key_file, "inference")):
            status, answer = request(
                "POST", f"{server.management}/models?url={url}&initial_workers=1&synchronous=true", headers
            )
            assert (status, "InvalidKeyException" in answer) == (400, True), answer
    assert not intruder.trace.exists()


def test_a_registration_without_a_token_is_refused_over_grpc_and_runs_no_code(
    server: TorchServe, intruder: Intruder
) -> None:
    for url in (f"file://{intruder.archive}", f"file://{intruder.directory}", str(intruder.directory)):
        wanted = ((3, 1), (5, "intruder"), (8, 1), (9, url))
        for token in ((), (("authorization", "Bearer guessed1"),)):
            refused = call(ports(server)["management"], f"{_MANAGEMENT}RegisterModel", *wanted, token=token)
            assert refused == grpc.StatusCode.PERMISSION_DENIED
    assert not intruder.trace.exists()


def test_the_model_cannot_be_removed_stopped_or_asked_without_a_token(server: TorchServe) -> None:
    for method, path in (
        ("DELETE", "/models/wafer"),
        ("DELETE", "/models/wafer/tiny-1"),
        ("PUT", "/models/wafer?min_worker=0&max_worker=0"),
        ("PUT", "/models/wafer/tiny-1/set-default"),
        ("GET", "/models"),
    ):
        assert request(method, server.management + path)[0] == 400
    management, inference = ports(server)["management"], ports(server)["inference"]
    for name, *fields in (
        ("UnregisterModel", (1, "wafer")),
        ("ScaleWorker", (1, "wafer")),
        ("SetDefault", (1, "wafer")),
    ):
        assert call(management, _MANAGEMENT + name, *fields) == grpc.StatusCode.PERMISSION_DENIED
    assert call(inference, f"{_INFERENCE}Predictions", (1, "wafer")) == grpc.StatusCode.PERMISSION_DENIED
    assert post(f"{server.url}/v2/models/wafer/infer", v2(b64(image())))[0] == 400
    status, answer = server.post("/v2/models/wafer/infer", v2(b64(image())))
    assert status == 200
    assert tensors(answer)["wafer"].all()


def test_an_archive_is_named_by_its_file_in_the_store_and_by_no_url(server: TorchServe, intruder: Intruder) -> None:
    token = authorization(server.key_file, "management")
    status, answer = request("POST", f"{server.management}/models?url=file://{intruder.archive}", token)
    assert (status, "does not match any allowed URL" in answer) == (404, True), answer


def test_in_a_cluster_no_model_is_registered_or_removed_over_http_or_grpc(
    cluster_server: TorchServe, intruder: Intruder
) -> None:
    for method, path in (
        ("POST", f"/models?url=file://{intruder.archive}&initial_workers=1&synchronous=true"),
        ("POST", f"/models?url={intruder.directory}&initial_workers=1&synchronous=true"),
        ("DELETE", "/models/wafer"),
    ):
        assert request(method, cluster_server.management + path)[0] == 405
    port = ports(cluster_server)["management"]
    registered = call(port, f"{_MANAGEMENT}RegisterModel", (3, 1), (5, "x"), (8, 1), (9, f"file://{intruder.archive}"))
    assert registered == grpc.StatusCode.PERMISSION_DENIED
    assert call(port, f"{_MANAGEMENT}UnregisterModel", (1, "wafer")) == grpc.StatusCode.PERMISSION_DENIED
    assert not intruder.trace.exists()
    assert post(f"{cluster_server.url}/v2/models/wafer/infer", v2(b64(image())))[0] == 200


def test_the_keys_are_its_owners_alone_whatever_the_directory_was_and_last_as_long_as_the_server(
    tiny_model: Path, tmp_path: Path
) -> None:
    work = torchserve.key_file(tmp_path).parent
    work.mkdir(mode=0o755)
    work.chmod(0o755)
    server = TorchServe(tmp_path, tiny_model)
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert server.key_file is not None
    try:
        server.start()
        assert stat.S_IMODE(server.key_file.stat().st_mode) == 0o600
        keys = json.loads(server.key_file.read_text())
        assert int(keys["management"]["expiration time"][:4]) >= 2035
        assert not any(key["key"] in server.log.read_text() for key in keys.values())
        server.kill()
        server.start()
        fresh = json.loads(server.key_file.read_text())
        for interface in ("inference", "management"):
            assert fresh[interface]["key"] != keys[interface]["key"]
    finally:
        server.stop()


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"inference": {}}', '{"inference": null}'])
def test_a_key_file_that_is_not_written_yet_is_waited_for(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ServerUnavailableError, match=r"expected TorchServe's token for inference in .*key_file\.json"):
        authorization(file, "inference")


def test_metrics_need_no_token(server: TorchServe) -> None:
    wait_until(lambda: request("GET", f"{server.metrics}/metrics")[0] == 200, server.last_words)
