"""What KServe's own server does beyond what both servers share (test_handlers_servers)."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kserve
import numpy as np
import psutil
import pytest
from kserve.errors import InvalidInput

from fabwafer_handlers.kserve_model import WaferModel
from tests.support import tiny_models
from tests.support.model_servers import KServe, b64, image, post, tensors, v2


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KServe]:
    server = KServe(tmp_path_factory.mktemp("kserve"), tiny_model)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_it_says_that_the_model_is_ready_in_both_versions(server: KServe) -> None:
    for path in ("/v1/models/wafer", "/v2/models/wafer/ready", "/v2/health/ready"):
        status, answer = post(server.url + path, None)
        assert (status, answer["ready"]) == (200, True)


def test_its_metadata_names_input_and_outputs(server: KServe) -> None:
    status, metadata = post(f"{server.url}/v2/models/wafer", None)
    assert status == 200
    assert metadata["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
        {"name": "colours", "datatype": "BYTES", "shape": [-1]},
    ]
    answered = post(f"{server.url}/v2/models/wafer/infer", v2(b64(image())))[1]["outputs"]
    described = {output["name"]: (output["datatype"], len(output["shape"])) for output in metadata["outputs"]}
    assert described == {output["name"]: (output["datatype"], len(output["shape"])) for output in answered}


def test_a_request_without_an_id_is_answered(server: KServe) -> None:
    status, answer = post(f"{server.url}/v2/models/wafer/infer", v2(b64(image())))
    assert status == 200
    assert answer["id"]


def test_its_log_stays_short(server: KServe) -> None:
    before = server.log.stat().st_size
    for _ in range(20):
        post(f"{server.url}/v2/models/wafer/infer", v2(b64(image()), "bad"))
    assert server.log.stat().st_size - before < 1000


def test_images_may_come_as_they_are_where_a_protocol_carries_bytes(tiny_model: Path) -> None:
    """As gRPC does, whose BYTES are bytes."""
    model = WaferModel(tiny_model)
    model.load()
    images = np.array([image(seed=1), b"no image"], np.object_)
    tensor = kserve.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(images, binary_data=True)
    request = kserve.InferRequest("wafer", [tensor])
    response = asyncio.run(model.predict(request))
    found = {output.name: output.data for output in response.outputs}
    assert found["wafer"] == [True, False]


def test_what_is_not_understood_raises_what_kserve_answers_with_400(tiny_model: Path) -> None:
    model = WaferModel(tiny_model)
    model.load()
    with pytest.raises(InvalidInput, match="expected"):
        asyncio.run(model.predict({"rows": []}))


def test_a_model_that_is_not_the_cards_is_not_served(tmp_path: Path) -> None:
    model = tiny_models.make(tmp_path)
    (model / "tiny.onnx").write_bytes(b"something else")
    done = subprocess.run(
        [sys.executable, "-m", "fabwafer_handlers.kserve_model", "--model_dir", str(model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "should have SHA-256" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_sigterm_ends_it(tiny_model: Path, tmp_path: Path) -> None:
    server = KServe(tmp_path, tiny_model)
    server.start()
    try:
        assert tensors(post(f"{server.url}/v2/models/wafer/infer", v2(b64(image())))[1])["wafer"].all()
        process = psutil.Process(server.pid)
        process.terminate()
        process.wait(timeout=30)
    finally:
        server.stop()
