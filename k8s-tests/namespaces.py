"""A namespace for one test: its Jobs, their pods, and what is in the model store that they share."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import yaml
from clusters import IMAGE
from kubernetes import client

MANIFEST = Path(__file__).parent.parent / "training-job" / "job.yaml"
CLAIM = "fabwafer-models"
_SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}}
_ENDED = {"Succeeded", "Failed"}
_PATIENCE = 600
"""Seconds to wait for anything; a busy machine is slow."""
_HOPELESS = {"CreateContainerConfigError", "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"}

T = TypeVar("T")

_LOOK = """
import json, pathlib
from fabwafer.models.store import open_store
store = open_store("/store")
def files(folder):
    root = pathlib.Path("/store") / folder
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
sound = [name for name in store.names() if store.published(name)]
print(json.dumps({"sound": sound, "versions": files("versions"), "work": files(".work")}))
"""


class HopelessError(RuntimeError):
    """What is waited for cannot come any more."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is in the model store.

    Attributes:
        sound: The versions; each was checked against its card.
        versions: All files below `versions/`, by their paths there.
        work: All files below `.work/`.
    """

    sound: list[str]
    versions: list[str]
    work: list[str]


@contextmanager
def new_namespace(api: client.ApiClient) -> Iterator["Namespace"]:
    """Makes a namespace with a claim for the model store, and removes it with all that is in it."""
    core: Any = client.CoreV1Api(api)
    name = f"fabwafer-test-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    try:
        storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        core.create_namespaced_persistent_volume_claim(name, {"metadata": {"name": CLAIM}, "spec": storage})
        yield Namespace(api, name)
    finally:
        core.delete_namespace(name)


class Namespace:
    """A namespace on a cluster.

    Args:
        api: A client of the cluster.
        name: What it is called.
    """

    def __init__(self, api: client.ApiClient, name: str) -> None:
        self.name = name
        self._core: Any = client.CoreV1Api(api)  # Any, as the answers' types leave open whether each field is there
        self._batch: Any = client.BatchV1Api(api)

    def retrain(self, *options: str) -> str:
        """Starts the Job of training-job/job.yaml; returns its name.

        Changed are the image, what it asks of a node, and its settings: a small base, and no records.

        Args:
            options: Options of the command.
        """
        job = yaml.safe_load(MANIFEST.read_text())
        [container] = job["spec"]["template"]["spec"]["containers"]
        container["image"] = IMAGE
        container["resources"] = _SMALL
        container["env"] = [one for one in container["env"] if one["name"] != "FABWAFER_DATABASE_URL"]
        container["args"] = ["--base", "synthetic:270", *options]
        made: str = self._batch.create_namespaced_job(self.name, job).metadata.name
        return made

    def ended(self, job: str) -> tuple[str, str]:
        """Waits for the end of a Job; returns `Complete` or `Failed`, and the reason."""

        def look() -> tuple[str, str] | None:
            for pod in self.pods(job):
                self._check(pod)
            conditions = self._batch.read_namespaced_job(job, self.name).status.conditions or []
            ends = [one for one in conditions if one.type in {"Complete", "Failed"} and one.status == "True"]
            return (ends[0].type, ends[0].reason or "") if ends else None

        return _wait(f"the end of the Job {job}", look)

    def pods(self, job: str) -> list[Any]:
        """Returns the pods of a Job that there are, the oldest first."""
        found = self._core.list_namespaced_pod(self.name, label_selector=f"batch.kubernetes.io/job-name={job}").items
        return sorted(found, key=lambda pod: pod.metadata.creation_timestamp)

    def pod(self, job: str, after: str = "") -> str:
        """Waits until a Job has a pod, another than the one it had; returns its name."""

        def look() -> str | None:
            names = [pod.metadata.name for pod in self.pods(job)]
            return next((str(name) for name in names if name != after), None)

        return _wait(f"a pod of {job}", look)

    def hear(self, pod: str, words: str) -> None:
        """Waits until a pod has said something."""

        def look() -> bool | None:
            found = self._core.read_namespaced_pod(pod, self.name)
            self._check(found)
            said = "" if found.status.phase == "Pending" else self.log(pod)
            if words not in said and found.status.phase in _ENDED:
                raise HopelessError(f"the pod {pod} ended without {words!r}: {said}")
            return True if words in said else None

        _wait(f"{words!r} in the log of {pod}", look)

    def log(self, pod: str) -> str:
        """Returns what a pod has said."""
        return str(self._core.read_namespaced_pod_log(pod, self.name))

    def kill(self, pod: str) -> None:
        """Removes a pod at once, without a word to it."""
        self._core.delete_namespaced_pod(pod, self.name, grace_period_seconds=0)

    def evict(self, pod: str) -> None:
        """Asks a pod to leave, as draining its node does."""
        self._core.create_namespaced_pod_eviction(
            pod, self.name, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        )

    def failures(self, job: str) -> int:
        """Returns how many pods of a Job count as failed."""
        return self._batch.read_namespaced_job(job, self.name).status.failed or 0

    def content(self) -> Content:
        """Looks into the model store."""
        return Content(**json.loads(self.run_python(_LOOK)))

    def run_python(self, code: str) -> str:
        """Runs Python beside the model store, in a pod like the Job's; returns what it printed."""
        spec = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]
        [container] = spec["containers"]
        container |= {"image": IMAGE, "resources": _SMALL, "env": [], "command": ["python", "-c", code]}
        name = self.run(spec)

        def look() -> str | None:
            pod = self._core.read_namespaced_pod(name, self.name)
            self._check(pod)
            return str(pod.status.phase) if pod.status.phase in _ENDED else None

        phase = _wait(f"the end of the pod {name}", look)
        said = self.log(name)
        if phase == "Failed":
            raise HopelessError(f"the pod {name} failed: {said}")
        return said

    def run(self, spec: dict[str, Any]) -> str:
        """Starts a pod; returns its name."""
        name = f"pod-{uuid4().hex[:8]}"
        self._core.create_namespaced_pod(self.name, {"metadata": {"name": name}, "spec": spec})
        return name

    def _check(self, pod: Any) -> None:
        """Raises HopelessError for a pod that will never start."""
        for status in pod.status.container_statuses or []:
            if status.state.waiting and status.state.waiting.reason in _HOPELESS:
                why = status.state.waiting
                raise HopelessError(f"the pod {pod.metadata.name} cannot start: {why.reason}: {why.message}")


def _wait(what: str, look: Callable[[], T | None]) -> T:
    """Looks until something is found."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.5)
    raise HopelessError(f"waited {_PATIENCE} s for {what}")
