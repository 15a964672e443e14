"""Both model servers around the small model, each in a process of its own, and what tests ask them."""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fabwafer.maps.grid import FAILED, PASSED
from fabwafer.maps.wafermap import encode
from fabwafer.models.key_file import authorization
from fabwafer.models.model_server import ServerUnavailableError
from fabwafer_local import torchserve
from fabwafer_local.ports import free_ports
from tests.support import tiny_models
from tests.support.running import ModelServer, _Process, as_in_a_cluster, wait_until

_CHECKOUT = Path(__file__).parents[2]


def disc(rows: int = 30, columns: int = 26, seed: int = 0) -> NDArray[np.uint8]:
    """Return a round wafer with a few failed dies, uint8 [rows, columns]."""
    y, x = np.mgrid[0:rows, 0:columns]
    inside = ((y + 0.5) / rows - 0.5) ** 2 + ((x + 0.5) / columns - 0.5) ** 2 <= 0.25
    grid = np.where(inside, PASSED, 0).astype(np.uint8)
    failed = np.random.default_rng(seed).random(grid.shape) < 0.1
    grid[inside & failed] = FAILED
    return grid


def image(rows: int = 30, columns: int = 26, seed: int = 0) -> bytes:
    """Return the PNG file of such a wafer."""
    return encode(disc(rows, columns, seed))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def v2(*data: Any, **more: Any) -> dict[str, Any]:
    """Return a V2 request with these data."""
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": list(data)}], **more}


def v1(*data: Any) -> dict[str, Any]:
    """Return a V1 request with these base64 texts."""
    return {"instances": [{"bytes": {"b64": text}} for text in data]}


def tensors(response: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the outputs of a V2 response as arrays of their shapes."""
    kinds = {"FP32": np.float32, "BOOL": np.bool_, "BYTES": np.object_}
    return {
        output["name"]: np.array(output["data"], kinds[output["datatype"]]).reshape(output["shape"])
        for output in response["outputs"]
    }


def post(
    url: str,
    body: bytes | dict[str, Any] | list[Any] | None,
    kind: str = "application/json",
    key_file: Path | None = None,
) -> tuple[int, dict[str, Any]]:
    """Post a body (or GETs without one), with the token where there is one; return the status and the answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = authorization(key_file, "inference") | ({"Content-Type": kind} if data is not None else {})
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def is_there(url: str, key_file: Path | None = None) -> bool:
    """Tell whether a GET is answered with 200, as a readiness probe asks."""
    try:
        return post(url, None, key_file=key_file)[0] == 200
    except (OSError, ServerUnavailableError):
        return False


class TorchServe(ModelServer):
    """TorchServe with a model of the test's own: as a local system runs it, or as in a cluster."""

    def __init__(self, directory: Path, model: Path, *, local: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(5)
        self.directory = directory
        self.spec = torchserve.prepare(
            directory, torchserve.build_archive(directory, model), torchserve.TorchServePorts(*ports)
        )
        _Process.__init__(self, self.spec.argv, dict(self.spec.env), directory / "torchserve.log")
        self.temporary = self.spec.temporary
        self.key_file = self.spec.key_file if local else None
        if not local:
            as_in_a_cluster(directory)
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.management = f"http://127.0.0.1:{ports[1]}"
        self.metrics = f"http://127.0.0.1:{ports[2]}"

    def post(
        self, path: str, body: bytes | dict[str, Any] | None, kind: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        """Post to the inference interface, with the token; return the status and the answer."""
        return post(self.url + path, body, kind, self.key_file)

    def wait_ready(self) -> None:
        wait_until(lambda: is_there(self.spec.ready_url, self.key_file), lambda: f"TorchServe: {self.last_words()}")


class KServe(_Process):
    """KServe's own server with a model of the test's own."""

    def __init__(self, directory: Path, model: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        argv = [
            sys.executable,
            "-m",
            "tests.support.kserve_loopback",
            "--model_dir",
            str(model),
            "--http_port",
            str(port),
        ]
        # Modules are found from the checkout, whatever folder the tests are run from.
        env = os.environ | {"PYTHONPATH": str(_CHECKOUT)}
        super().__init__([*argv, "--enable_grpc", "false"], env, directory / "kserve.log")

    def start(self) -> None:
        """Start it, and wait until the model is ready."""
        self.spawn()
        wait_until(lambda: is_there(f"{self.url}/v2/models/wafer/ready"), lambda: f"KServe: {self.last_words()}")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    return tiny_models.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=[TorchServe, KServe], ids=["TorchServe", "KServe"])
def either_server(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TorchServe | KServe]:
    """Each of the servers in turn."""
    directory = tmp_path_factory.mktemp("server")
    server = (
        KServe(directory, tiny_model) if request.param is KServe else TorchServe(directory, tiny_model, local=False)
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()
