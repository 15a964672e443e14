"""The pods of a model server, as the Kubernetes API describes them: the version of each, and why it is not ready."""

from collections.abc import Callable, Sequence
from typing import Final

from fabwafer.models.predictor import VERSION_ANNOTATION, Manifest

LONGEST_REASON: Final = 500
"""Characters of a reason: it is shown in tables."""

# While these last, what happens is told by events: a volume that is missing, for example.
_STARTING: Final = ("ContainerCreating", "PodInitializing")


def version_of(pod: Manifest) -> str | None:
    """Return the version that a pod serves, or None for one that was named none."""
    version: str | None = pod["metadata"].get("annotations", {}).get(VERSION_ANNOTATION)
    return version


def is_ready(pod: Manifest) -> bool:
    """Tell whether a pod answers requests, and was not asked to end."""
    ending = "deletionTimestamp" in pod["metadata"]
    return not ending and (_condition(pod, "Ready") or {}).get("status") == "True"


def reason(pod: Manifest, events: Sequence[Manifest], last_line: Callable[[str], str]) -> str:
    """Return why a pod is not ready, in one line.

    Args:
        pod: The pod.
        events: Its events.
        last_line: Returns the last line of a container's log, empty where it has none.
    """
    found = _unscheduled(pod) or _container_reason(pod, events, last_line) or _warning(events) or "it is not ready yet"
    return " ".join(f"its pod {pod['metadata']['name']}: {found}".split())[:LONGEST_REASON]


def _unscheduled(pod: Manifest) -> str | None:
    scheduled = _condition(pod, "PodScheduled") or {}
    return f"cannot be scheduled: {scheduled.get('message')}" if scheduled.get("status") == "False" else None


def _container_reason(pod: Manifest, events: Sequence[Manifest], last_line: Callable[[str], str]) -> str | None:
    """Return the reason of the first container that holds the pod up, the init containers first."""
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if container.get("ready"):
            continue
        name, state, last = container["name"], container.get("state", {}), container.get("lastState", {})
        if ended := state.get("terminated") or last.get("terminated"):
            if ended.get("exitCode") == 0 and not state.get("waiting"):  # an init container that is done
                continue
            return f"container {name} ended: {_end(ended) or last_line(name) or _exit(ended)}"
        waiting = state.get("waiting", {})
        if waiting and waiting.get("reason") not in _STARTING:
            return f"container {name} cannot start: {waiting.get('reason')}: {waiting.get('message', '')}"
        if waiting:
            return None
        told = (_warning(events), last_line(name))
        return f"container {name} runs and is not ready: {'; '.join(one for one in told if one)}"
    return None


def _end(terminated: Manifest) -> str:
    """Return a termination message, else the reason where it says more than that there was an error."""
    if message := terminated.get("message", "").strip():
        return str(message)
    kind = terminated.get("reason", "Error")
    return f"{kind}, {_exit(terminated)}" if kind != "Error" else ""


def _exit(terminated: Manifest) -> str:
    return f"exit code {terminated.get('exitCode')}"


def _warning(events: Sequence[Manifest]) -> str:
    """Return the newest warning among events."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    newest = max(warnings, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default={})
    return str(newest.get("message", ""))


def _condition(pod: Manifest, kind: str) -> Manifest | None:
    conditions: list[Manifest] = pod.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == kind), None)
