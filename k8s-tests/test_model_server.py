"""TorchServe from the image of handlers/, under KServe, in a namespace that takes `restricted` pods alone."""

import base64
from pathlib import Path
from typing import Any

import aiohttp
import images
import pytest
import yaml
from kr8s.asyncio import Api
from kr8s.asyncio.objects import new_class
from namespaces import Namespace, restricted_pod, wait

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode

pytestmark = pytest.mark.timeout(1800)

_MANIFESTS = (Path(__file__).parent / "model_server.yaml").read_text()
_PODS = "serving.kserve.io/inferenceservice=wafer"
_STORE = "/mnt/models"
_FILL_STORE = f"""
set -e
fabwafer archive --out {_STORE}
cd "$(python -c 'import fabwafer; print(fabwafer.__path__[0])')/model_store"
cp config.properties log4j2.xml {_STORE}
"""


@pytest.fixture
async def model_server(api: Api, namespace: Namespace) -> Namespace:
    """A namespace where the shipped model is ready to answer."""
    try:
        await api.lookup_kind("inferenceservices.serving.kserve.io")
    except ValueError:
        pytest.skip("needs KServe in the cluster")
    container = {"name": "archive", "image": images.HANDLERS, "command": ["sh", "-c", _FILL_STORE]}
    await namespace.run_to_end(restricted_pod(container, _STORE))
    for manifest in yaml.safe_load_all(_MANIFESTS.replace("IMAGE", images.HANDLERS)):
        kind = new_class(manifest["kind"], version=manifest["apiVersion"])
        made = await namespace.create(kind, manifest)
    await wait(await namespace.pod(_PODS), "condition=Ready")  # before that the service may have no status
    await wait(made, "condition=Ready")
    return namespace


async def post(server: Namespace, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Post to the model server's pod, through a port on loopback; return the status and the answer."""
    pod = await server.pod(_PODS)
    async with (
        pod.portforward(8080, local_port="auto") as port,
        aiohttp.ClientSession() as client,
        client.post(f"http://127.0.0.1:{port}{path}", json=body) as response,
    ):
        return response.status, await response.json(content_type=None)


async def test_the_model_server_answers_v2_and_v1_for_wafer_maps(model_server: Namespace) -> None:
    maps = sample(seed=1, n=9)
    files = [base64.b64encode(encode(grid, scale=4)).decode() for _, grid in maps]
    v2 = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(files)], "data": files}]}
    status, answer = await post(model_server, "/v2/models/wafer/infer", v2)
    assert status == 200, answer
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["error"]["data"] == [""] * len(files)
    labels = outputs["label"]["data"]
    assert set(labels) <= set(outputs["classes"]["data"])
    right = sum(label == truth for label, (truth, _) in zip(labels, maps, strict=True))
    assert right > len(maps) / 2, labels
    v1 = {"instances": [{"bytes": {"b64": file}} for file in files]}
    status, answer = await post(model_server, "/v1/models/wafer:predict", v1)
    assert status == 200, answer
    assert [one["label"] for one in answer["predictions"]] == labels
