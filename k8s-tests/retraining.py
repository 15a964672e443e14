"""The Job of the chart's CronJob, and what it leaves in the model store."""

import json
from dataclasses import dataclass

import images
import yaml
from helm import CHART, VALUES, helm
from kr8s.asyncio.objects import Job
from namespaces import Namespace, restricted_pod, wait

_TEMPLATE = "templates/retraining/cronjob.yaml"
_SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}}
_STORE = "/store"

_LIST = f"""
import json, pathlib
from fabwafer.models.store import open_store
store = open_store({_STORE!r})
def files(folder):
    root = pathlib.Path({_STORE!r}) / folder
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
sound = [name for name in store.names() if store.published(name)]
print(json.dumps({{"sound": sound, "versions": files("versions"), "work": files(".work")}}))
"""


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


async def start(namespace: Namespace, *options: str) -> Job:
    """Start the Job with another image, small requests, a small base set and no records.

    Args:
        namespace: Where to start it.
        options: Options of the command.
    """
    settings = ("-f", str(VALUES), *images.chart_values(), "--set", "credentials.existingSecret=none")
    rendered = await helm("template", "fabwafer", str(CHART), "--show-only", _TEMPLATE, *settings)
    spec = yaml.safe_load(rendered)["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    container["resources"] = _SMALL
    container["env"] = [one for one in container["env"] if not one["name"].startswith("FABWAFER_DATABASE_")]
    container["args"] = ["--base", "synthetic:270", *options]
    for holder, entries in ((pod, "volumes"), (container, "volumeMounts")):
        holder[entries] = [one for one in holder[entries] if one["name"] != "credentials"]
    return await namespace.create(Job, {"metadata": {"generateName": "fabwafer-retrain-"}, "spec": spec})


def pods_of(job: Job) -> str:
    """Return the label selector of a Job's pods."""
    return f"batch.kubernetes.io/job-name={job.name}"


async def end_of(job: Job) -> tuple[str, str]:
    """Wait for the end of a Job; return `Complete` or `Failed`, and the reason."""
    await wait(job, "condition=Complete", "condition=Failed")
    [end] = [one for one in job.status.conditions if one.type in {"Complete", "Failed"} and one.status == "True"]
    return str(end.type), str(end.reason)


async def failures(job: Job) -> int:
    """Return how many pods of a Job count as failed."""
    await job.refresh()
    return int(dict(job.status).get("failed", 0))


async def content(namespace: Namespace) -> Content:
    """List the model store, from a pod beside it."""
    return Content(**json.loads(await run_python(namespace, _LIST)))


async def run_python(namespace: Namespace, code: str) -> str:
    """Run Python in a pod with the Job's image and the model store; return what it printed."""
    container = {"name": "python", "image": images.TRAINING, "resources": _SMALL, "command": ["python", "-c", code]}
    return await namespace.run_to_end(restricted_pod(container, _STORE))
