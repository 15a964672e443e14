"""`fabwafer rollout` in a cluster: a promotion, a refusal, a trial, with KServe and without it."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from kr8s.asyncio import Api
from namespaces import PATIENCE, Namespace
from predictors import System

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode

pytestmark = pytest.mark.timeout(2400)

CHAMPIONS, CANDIDATES, RECONCILER = "fabwafer/serves=champion", "fabwafer/serves=candidate", "app=fabwafer-rollout"
IMAGE = base64.b64encode(encode(sample(seed=1, n=1)[0][1], scale=4)).decode()


@pytest.fixture(params=[True, False], ids=["InferenceService", "Deployment"])
async def system(request: pytest.FixtureRequest, api: Api, namespace: Namespace) -> System:
    """A namespace for a predictor and the reconciler."""
    if request.param:
        try:
            await api.lookup_kind("inferenceservices.serving.kserve.io")
        except ValueError:
            pytest.skip("needs KServe in the cluster")
    return System(namespace, kserve=request.param)


async def until(what: Callable[[], Awaitable[object]], expected: object) -> None:
    """Wait until a question has an answer."""
    found: object = None
    for _ in range(PATIENCE):
        if (found := await what()) == expected:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"waited in vain for {expected!r}, found {found!r}")


async def test_the_pods_follow_champion_and_candidate(system: System) -> None:
    async def champions() -> object:
        return await system.serving("champion")

    async def candidates() -> object:
        return await system.serving("candidate")

    await system.start(ready_seconds=300)
    # The first pod waited until a version was named.
    await until(champions, [("v1", True)])
    assert await system.answering("champion", IMAGE) == "v1"
    # A promotion.
    await system.run("model", "promote", "v2")
    await until(champions, [("v2", True)])
    assert await system.answering("champion", IMAGE) == "v2"
    # What somebody else names is repaired.
    [before] = await system.pods(CHAMPIONS)
    predictor = await system.predictor("wafer")
    pods = {"annotations": {"fabwafer/model-version": "v1"}}
    spec = {"predictor": pods} if system.kserve else {"template": {"metadata": pods}}
    await predictor.patch({"spec": spec})
    await until(partial(system.named, "wafer"), "v2")
    await until(champions, [("v2", True)])
    assert (await system.pods(CHAMPIONS))[0].name == before.name, "it was repaired before another pod was ready"
    # A trial: a predictor of its own, which follows a change of the champion's.
    await system.run("model", "candidate", "v1")
    await until(candidates, [("v1", True)])
    assert await system.answering("candidate", IMAGE) == "v1"
    assert (await system.serving("champion")) == [("v2", True)]
    [trial] = await system.pods(CANDIDATES)
    copied = await system.predictor("wafer-candidate")
    assert [owner["name"] for owner in copied.metadata.ownerReferences] == ["wafer"]
    grace = {"terminationGracePeriodSeconds": 29}
    await predictor.patch({"spec": {"predictor": grace} if system.kserve else {"template": {"spec": grace}}})

    async def graces() -> object:
        pods = [*await system.pods(CHAMPIONS), *await system.pods(CANDIDATES)]
        return [(pod.spec.terminationGracePeriodSeconds, await pod.ready()) for pod in pods]

    await until(graces, [(29, True)] * 2)
    assert (await system.pods(CANDIDATES))[0].name != trial.name
    await system.run("model", "candidate", "--none")
    await until(candidates, [])
    assert await system.serving("champion") == [("v2", True)]


async def test_a_version_that_cannot_serve_is_put_back_and_nobody_waits(system: System) -> None:
    async def champions() -> object:
        return await system.serving("champion")

    async def states() -> object:
        listed = [json.loads(line) for line in (await system.run("model", "list", "--json")).splitlines()]
        return {one["version"]: one["states"] for one in listed}

    async def reconcilers() -> object:
        return [(pod.name == reconciler.name, await pod.ready()) for pod in await system.pods(RECONCILER)]

    # Long enough for the broken one to say what is wrong; the first champion has as long as it needs.
    await system.start(ready_seconds=60)
    await until(champions, [("v1", True)])
    [before] = await system.pods(CHAMPIONS)
    await system.run("model", "promote", "broken")
    await until(states, {"broken": ["refused"], "v1": ["champion"], "v2": []})
    assert "container model ended: the version broken in /store cannot serve: ONNX Runtime cannot load" in (
        await system.run("model", "history")
    )
    # Another reconciler does not try again.
    [reconciler] = await system.pods(RECONCILER)
    await reconciler.delete()
    await until(reconcilers, [(False, True)])
    await until(champions, [("v1", True)])
    assert [pod.name for pod in await system.pods(CHAMPIONS)] == [before.name]
    assert [status["restartCount"] for status in before.status.containerStatuses] == [0]
    # A candidate that cannot serve ends its trial, and the champion goes on.
    await system.run("model", "candidate", "broken")
    await until(states, {"broken": ["candidate"], "v1": ["champion"], "v2": []})
    await until(states, {"broken": ["refused"], "v1": ["champion"], "v2": []})
    assert [pod.name for pod in await system.pods(CHAMPIONS)] == [before.name]
