"""A namespace for one test, with a volume for the model store, and the pods that run in it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import uuid4

from kr8s.asyncio import Api
from kr8s.asyncio.objects import APIObject, Deployment, PersistentVolumeClaim, Pod
from kr8s.asyncio.objects import Namespace as NamespaceObject

T = TypeVar("T", bound=APIObject)

CLAIM = "fabwafer-models"
PATIENCE = 600
"""Seconds to wait for anything; a busy machine is slow."""
USER = 65532
"""The user and group of all images."""
POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class FailedError(RuntimeError):
    """A pod or another object failed, or did not become what the test waits for."""


@asynccontextmanager
async def new_namespace(api: Api) -> AsyncIterator["Namespace"]:
    """Make a namespace that takes only pods that meet `restricted`, and remove it with all that is in it."""
    name = f"fabwafer-test-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = await NamespaceObject({"metadata": {"name": name, "labels": labels}}, api=api)
    await made.create()
    try:
        yield Namespace(api, name)
    finally:
        await made.delete()


class Namespace:
    """A namespace on a cluster.

    Args:
        api: A client of the cluster.
        name: The name of the namespace.
    """

    def __init__(self, api: Api, name: str) -> None:
        self.api = api
        self.name = name

    async def create(self, kind: type[T], manifest: dict[str, Any]) -> T:
        """Create an object in the namespace."""
        made: T = await kind(manifest, namespace=self.name, api=self.api)
        await made.create()
        return made

    async def add_store(self) -> None:
        """Make the claim of a model store."""
        storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        await self.create(PersistentVolumeClaim, {"metadata": {"name": CLAIM}, "spec": storage})

    async def pods(self, selector: str) -> list[Pod]:
        """Return the pods that a label selector finds, the oldest first."""
        found = self.api.get("pods", namespace=self.name, label_selector=selector)
        pods = [pod async for pod in found if isinstance(pod, Pod)]
        return sorted(pods, key=lambda pod: str(pod.metadata.creationTimestamp))

    async def pod(self, selector: str, other_than: str = "") -> Pod:
        """Wait for a pod that a label selector finds, other than the one that is named."""
        async with asyncio.timeout(PATIENCE):
            async for _, pod in self.api.watch("pods", namespace=self.name, label_selector=selector):
                if isinstance(pod, Pod) and pod.name != other_than:
                    return pod
        raise FailedError(f"the watch of {selector} ended")

    async def run(self, spec: dict[str, Any]) -> Pod:
        """Start a pod."""
        return await self.create(Pod, {"metadata": {"name": f"pod-{uuid4().hex[:8]}"}, "spec": spec})

    async def run_to_end(self, spec: dict[str, Any]) -> str:
        """Run a pod to its end and return its log.

        Raises:
            FailedError: The pod failed.
        """
        pod = await self.run(spec)
        await phase(pod, "Succeeded", "Failed")
        text = await log(pod)
        if pod.status.phase == "Failed":
            raise FailedError(f"the pod {pod.name} failed: {text}")
        return text

    async def evict(self, pod: Pod) -> None:
        """Ask a pod to end, as draining its node does. kr8s has no evictions."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}}
        async with self.api.call_api("POST", namespace=self.name, url=f"pods/{pod.name}/eviction", json=eviction):
            pass


async def wait(what: APIObject, *conditions: str) -> None:
    """Wait until one of the conditions holds (as `kubectl wait --for` writes them).

    Raises:
        FailedError: None did in time. The text has the object's state, for example that its image cannot be pulled.
    """
    try:
        await what.wait(list(conditions), timeout=PATIENCE)
    except TimeoutError:
        await what.refresh()
        raise FailedError(f"waited {PATIENCE} s for {conditions} of {what.name}: {what.status}") from None


async def ready(deployment: Deployment) -> None:
    """Wait until a Deployment's pods are those of its newest template, and all of them are ready."""

    def done() -> bool:
        status, replicas = dict(deployment.status), int(deployment.spec.replicas)
        newest = int(status.get("observedGeneration", 0)) >= int(deployment.metadata.generation)
        counts = [int(status.get(name, 0)) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        return newest and counts == [replicas] * 3

    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise FailedError(f"waited {PATIENCE} s for {deployment.name}: {deployment.status}")
        await asyncio.sleep(1)
        await deployment.refresh()


async def phase(pod: Pod, *phases: str) -> None:
    """Wait until a pod is in one of the phases."""
    await wait(pod, *(f"jsonpath='{{.status.phase}}'={name}" for name in phases))


async def log(pod: Pod) -> str:
    """Return the log of a pod."""
    return "\n".join([line async for line in pod.logs()])


async def until_logged(pod: Pod, text: str) -> None:
    """Wait until a pod has logged a text.

    Raises:
        FailedError: It ended without.
    """
    await phase(pod, "Running", "Succeeded", "Failed")
    lines = []
    async for line in pod.logs(follow=True, timeout=PATIENCE):
        lines.append(line)
        if text in line:
            return
    raise FailedError(f"the log of the pod {pod.name} ended without {text!r}: " + "\n".join(lines))


def restricted_pod(container: dict[str, Any], store: str | None = None) -> dict[str, Any]:
    """Return the spec of a pod that meets `restricted`, with a /tmp, and the model store at the path `store`."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if store is not None:
        mounts.append({"name": "store", "mountPath": store})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": CLAIM}})
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": POD_SECURITY,
        "containers": [container | {"securityContext": CONTAINER_SECURITY, "volumeMounts": mounts}],
        "volumes": volumes,
    }
