"""The chart on a new namespace: from nothing to the first prediction, and what an operator does then."""

import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import images
import kr8s.asyncio
import pytest
import pytest_asyncio
from kr8s.asyncio.objects import Service
from load import camera
from namespaces import CONTAINER_SECURITY, new_namespace, restricted_pod
from release import Release

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"

_TRY_EVERYTHING = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def is_open(target):
    try:
        socket.create_connection(target, timeout=5).close()
    except OSError:
        return False
    return True
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with ThreadPoolExecutor(50) as pool:
    print(json.dumps([target for target, found in zip(targets, pool.map(is_open, targets)) if found]))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def release(cluster: Path) -> AsyncIterator[Release]:
    """A release on a namespace of its own, ready."""
    api = await kr8s.asyncio.api(kubeconfig=str(cluster))
    async with new_namespace(api) as namespace:
        made = Release(namespace)
        began = time.monotonic()
        await made.install()
        print(f"from nothing to ready: {time.monotonic() - began:.0f} s")
        yield made


def messages() -> dict[str, bytes]:
    """Return what devices in the field send, by the topic: predictions of their own for three wafers, and one image.

    They are the recorded ones where these lie beside the project, else of the same form.
    """
    if SAMPLES.is_dir():
        files = sorted(SAMPLES.glob("*-img?.json"))
        return {f"{file.name.partition('-')[0]} {file.stem}": file.read_bytes() for file in files}
    wafer = {"timestamp": 1554134552944, "fab": "faba", "camera": "camera1"}
    found = {"none": 0.9, "loc": 0.4, "donut": 0.9}
    bodies = {
        f"prediction {number}": wafer | {"imgid": f"img{number}", "prediction": label, "probability": probability}
        for number, (label, probability) in enumerate(found.items(), start=1)
    }
    [grid] = [grid for label, grid in sample(seed=1, n=9) if label == "Donut"]
    drawn = base64.b64encode(encode(grid, scale=4)).decode()
    bodies["image 3"] = wafer | {"imgid": "img3", "bytes": drawn}
    return {topic: json.dumps(body).encode() for topic, body in bodies.items()}


async def test_messages_of_devices_in_the_field_are_recorded_and_answered(release: Release) -> None:
    password = await release.add_device("faba", "camera1")
    [bus] = await release.pods("nats")
    async with (
        bus.portforward(1883, local_port="auto") as port,
        aiomqtt.Client(
            "127.0.0.1", port, username="faba.camera1", password=password, identifier="faba_camera1"
        ) as client,
    ):
        await client.subscribe("fabwafer/faba/camera1/prediction/#")
        for name, body in messages().items():
            kind = {"image": "img", "prediction": "prediction"}[name.split()[0]]
            await client.publish(f"fabwafer/faba/camera1/{kind}/img1", body, qos=1)
        async for message in client.messages:
            answer = json.loads(bytes(message.payload))
            if answer.get("source") == "cluster":  # the device hears its own too
                break
    assert answer["imgid"] == "img3"
    assert answer["prediction"]
    await release.until_recorded("faba", ["img3"])
    rows = [json.loads(line) for line in (await release.fabwafer("records", "--json")).splitlines()]
    assert {row["imgid"] for row in rows} >= {"img1", "img2", "img3"}


async def test_images_of_a_camera_in_the_cluster_are_classified_once_each(release: Release) -> None:
    async with camera(release, "fab2", rate=20, most=60) as ledger:
        pass
    await ledger.check(release)


async def test_a_pod_without_a_role_reaches_the_listener_for_devices_and_metrics_alone(release: Release) -> None:
    services = [one for one in await release.objects("services") if isinstance(one, Service)]
    targets = [(one.name, int(port.port)) for one in services for port in one.spec.ports]
    assert ("wafer-model", 80) in targets
    for pod in await release.objects("pods"):
        address = pod.status.podIP
        targets += [(address, port) for port in (4222, 5432, 6222, 8080, 8081, 8082, 8222)]
    container = {"name": "nobody", "image": images.BRIDGE}
    container["command"] = ["python", "-c", _TRY_EVERYTHING, json.dumps(targets)]  # type: ignore[assignment]
    reached = json.loads(await release.namespace.run_to_end(restricted_pod(container)))
    assert [one for one in reached if one[1] != 8082] == [["fabwafer-mqtt", 1883]]  # 8082: metrics of TorchServe


async def test_every_pod_of_the_release_meets_restricted_and_only_the_reconciler_has_a_token(release: Release) -> None:
    found = await release.objects("pods")
    pods = [pod for pod in found if "app.kubernetes.io/component" in pod.metadata.get("labels", {})]
    parts = {pod.metadata.labels["app.kubernetes.io/component"] for pod in pods}
    assert parts >= {"bridge", "nats", "postgresql", "predictor", "rollout", "setup"}
    for pod in pods:
        for container in [*pod.spec.containers, *pod.spec.get("initContainers", [])]:
            assert dict(container.securityContext) | CONTAINER_SECURITY == dict(container.securityContext), pod.name
        token = any(str(volume.name).startswith("kube-api-access") for volume in pod.spec.volumes)
        assert token == pod.name.startswith("fabwafer-rollout"), pod.name


async def test_helm_test_passes(release: Release) -> None:
    printed = await release.helm("test", "fabwafer", "--logs")
    assert "Phase:          Succeeded" in printed, printed


async def test_the_namespace_takes_no_pod_that_may_be_root(release: Release) -> None:
    with pytest.raises(kr8s.ServerError, match="violates PodSecurity"):
        await release.namespace.run({"containers": [{"name": "root", "image": images.BRIDGE}]})
