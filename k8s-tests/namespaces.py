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
_PATIENCE = 600
"""Seconds to wait for anything; a busy machine is slow."""
_HOPELESS = {"CreateContainerConfigError", "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"}

T = TypeVar("T")

_LOOK = """
import json, pathlib
from fabwafer_training.store import open_store
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

    def pod_that_says(self, job: str, words: str) -> str:
        """Waits until a pod of a Job has said something; returns the pod's name."""

        def look() -> str | None:
            for pod in self.pods(job):
                self._check(pod)
                if pod.status.phase != "Pending" and words in self.log(pod.metadata.name):
                    return str(pod.metadata.name)
            return None

        return _wait(f"{words!r} in the log of {job}", look)

    def log(self, pod: str) -> str:
        """Returns what a pod has said."""
        return str(self._core.read_namespaced_pod_log(pod, self.name))

    def kill(self, pod: str) -> None:
        """Removes a pod at once, without a word to it."""
        self._core.delete_namespaced_pod(pod, self.name, grace_period_seconds=0)

    def content(self) -> Content:
        """Looks into the model store."""
        return Content(**json.loads(self.run_python(_LOOK)))

    def run_python(self, code: str) -> str:
        """Runs Python beside the model store, in a pod like the Job's; returns what it printed."""
        spec = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]
        [container] = spec["containers"]
        container |= {"image": IMAGE, "resources": _SMALL, "env": [], "command": ["python", "-c", code]}
        name = f"python-{uuid4().hex[:8]}"
        self._core.create_namespaced_pod(self.name, {"metadata": {"name": name}, "spec": spec})

        def look() -> str | None:
            pod = self._core.read_namespaced_pod(name, self.name)
            self._check(pod)
            return str(pod.status.phase) if pod.status.phase in {"Succeeded", "Failed"} else None

        phase = _wait(f"the end of the pod {name}", look)
        said = self.log(name)
        if phase == "Failed":
            raise HopelessError(f"the pod {name} failed: {said}")
        return said

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
