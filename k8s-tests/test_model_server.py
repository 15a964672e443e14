"""The model servers from the images of handlers/, in a namespace that takes `restricted` pods alone."""

import base64
from pathlib import Path
from typing import Any

import aiohttp
import images
import pytest
import yaml
from kr8s.asyncio import Api
from kr8s.asyncio.objects import Pod, new_class
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


async def post(pod: Pod, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Post to a model server's pod, through a port on loopback; return the status and the answer."""
    async with (
        pod.portforward(8080, local_port="auto") as port,
        aiohttp.ClientSession() as client,
        client.post(f"http://127.0.0.1:{port}{path}", json=body) as response,
    ):
        return response.status, await response.json(content_type=None)


async def check_answers(pod: Pod) -> None:
    """Check that a model server answers V2 and V1 requests with nine wafer maps, mostly right."""
    maps = sample(seed=1, n=9)
    files = [base64.b64encode(encode(grid, scale=4)).decode() for _, grid in maps]
    v2 = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(files)], "data": files}]}
    status, answer = await post(pod, "/v2/models/wafer/infer", v2)
    assert status == 200, answer
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["error"]["data"] == [""] * len(files)
    labels = outputs["label"]["data"]
    assert set(labels) <= set(outputs["classes"]["data"])
    right = sum(label == truth for label, (truth, _) in zip(labels, maps, strict=True))
    assert right > len(maps) / 2, labels
    v1 = {"instances": [{"bytes": {"b64": file}} for file in files]}
    status, answer = await post(pod, "/v1/models/wafer:predict", v1)
    assert status == 200, answer
    assert [one["label"] for one in answer["predictions"]] == labels


async def test_the_model_server_answers_v2_and_v1_for_wafer_maps(model_server: Namespace) -> None:
    await check_answers(await model_server.pod(_PODS))


async def test_kserves_own_server_answers_the_same_without_torch_and_java(namespace: Namespace) -> None:
    shipped = "$(python -c 'from fabwafer.models.shipped import default_model; print(default_model())')"
    command = f'exec python -m fabwafer_handlers.kserve_model --model_dir "{shipped}"'
    container = {
        "name": "server",
        "image": images.KSERVE_MODEL,
        "command": ["sh", "-c", command],
        "readinessProbe": {"httpGet": {"path": "/v2/models/wafer/ready", "port": 8080}, "periodSeconds": 2},
    }
    pod = await namespace.run(restricted_pod(container, "/store"))
    await wait(pod, "condition=Ready")
    await check_answers(pod)
