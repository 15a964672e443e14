"""What is wrong with a pod, in one line, from what the Kubernetes API says of it."""

from typing import Any

import pytest

from fabwafer.models.pods import LONGEST_REASON, is_ready, reason, version_of


def pod(*containers: dict[str, Any], init: dict[str, Any] | None = None, **conditions: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "wafer-1", "annotations": {"fabwafer/model-version": "v2"}},
        "status": {
            "conditions": [
                {"type": kind, "status": status, "message": "0/3 nodes are available: Insufficient cpu."}
                for kind, status in conditions.items()
            ],
            "initContainerStatuses": [{"name": "model"} | init] if init else [],
            "containerStatuses": [{"name": "server"} | one for one in containers],
        },
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(message: str, code: int = 1, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


DONE = {"state": ended("", 0, "Completed"), "ready": True}
HELD_UP = waiting("PodInitializing")
EVENTS = [
    {"type": "Warning", "lastTimestamp": "2026-01-02T00:00:00Z", "message": "Readiness probe failed: 503"},
    {"type": "Warning", "lastTimestamp": "2026-01-01T00:00:00Z", "message": "an older one"},
    {"type": "Normal", "lastTimestamp": "2026-01-03T00:00:00Z", "message": "Pulled"},
]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pod(PodScheduled="False"), "cannot be scheduled: 0/3 nodes are available: Insufficient cpu."),
        (
            pod(HELD_UP, init=waiting("CrashLoopBackOff", "back-off") | {"lastState": ended("there is no version v2")}),
            "container model ended: there is no version v2",
        ),
        (
            pod(HELD_UP, init={"state": ended("there is no\nversion v2\n")}),
            "container model ended: there is no version v2",
        ),
        (
            pod(HELD_UP, init={"state": {"running": {}}, "ready": False}),
            "container model runs and is not ready: Readiness probe failed: 503; last line of model",
        ),
        (
            pod(waiting("ImagePullBackOff", "no such image"), init=DONE),
            "container server cannot start: ImagePullBackOff: no such image",
        ),
        (
            pod({"state": {"running": {}}, "ready": False, "lastState": ended("", 137, "OOMKilled")}, init=DONE),
            "container server ended: OOMKilled, exit code 137",
        ),
        (
            pod(waiting("CrashLoopBackOff") | {"lastState": ended("")}, init=DONE),
            "container server ended: last line of server",
        ),
        (
            pod({"state": {"running": {}}, "ready": False}, init=DONE),
            "container server runs and is not ready: Readiness probe failed: 503; last line of server",
        ),
        (
            pod(
                waiting("ImagePullBackOff", "no such image"),
                init={"ready": True, "state": {"running": {}}, "lastState": ended("old trouble")},
            ),
            "container server cannot start: ImagePullBackOff: no such image",
        ),
        (pod(waiting("ContainerCreating")), "Readiness probe failed: 503"),
    ],
    ids=[
        "unschedulable",
        "init crashes",
        "init ended",
        "init runs",
        "image",
        "out of memory",
        "crash",
        "503",
        "beside one that runs again",
        "volume",
    ],
)
def test_the_reason_is_what_holds_the_pod_up(found: dict[str, Any], expected: str) -> None:
    assert reason(found, EVENTS, lambda name: f"last line of {name}") == f"its pod wafer-1: {expected}"


def test_a_pod_of_which_nothing_is_known_is_not_ready_yet_and_long_reasons_are_cut() -> None:
    assert reason({"metadata": {"name": "wafer-1"}}, [], lambda _: "") == "its pod wafer-1: it is not ready yet"
    long = pod({"state": ended("x" * 9999)})
    assert len(reason(long, [], lambda _: "")) == LONGEST_REASON


def test_a_pod_that_was_asked_to_end_is_not_ready() -> None:
    ready = pod(Ready="True")
    assert (is_ready(ready), version_of(ready)) == (True, "v2")
    ready["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not is_ready(ready)
    assert not is_ready(pod(Ready="False"))
    assert not is_ready(pod())
