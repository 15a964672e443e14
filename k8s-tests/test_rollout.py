"""Champion and candidate in a cluster: a promotion under load, a trial, and versions that cannot serve."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from kr8s.asyncio import Api
from load import camera
from namespaces import PATIENCE, Namespace
from predictors import Predictors, add_versions
from release import Release

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode

pytestmark = pytest.mark.timeout(2400)

IMAGE = base64.b64encode(encode(sample(seed=1, n=1)[0][1], scale=4)).decode()
# Long enough for the broken version to say what is wrong with it.
SECONDS = json.dumps([{"name": "FABWAFER_READY_SECONDS", "value": "90"}])
WITHOUT_KSERVE = ("--set", "kserve.enabled=false", "--set", "predictor.runtime=kserve")


@pytest.fixture(params=[True, False], ids=["InferenceService", "Deployment"])
async def kserve(request: pytest.FixtureRequest, api: Api) -> bool:
    """Whether the model server is an InferenceService of KServe, with TorchServe; else a Deployment, with KServe's."""
    if request.param:
        try:
            await api.lookup_kind("inferenceservices.serving.kserve.io")
        except ValueError:
            pytest.skip("needs KServe in the cluster")
    return bool(request.param)


async def until(what: Callable[[], Awaitable[object]], expected: object) -> None:
    """Wait until a question has an answer."""
    found: object = None
    for _ in range(PATIENCE):
        if (found := await what()) == expected:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"waited in vain for {expected!r}, found {found!r}")


async def models(release: Release) -> set[str]:
    """Return the versions that have answered images of the first fab."""
    return {model for found in (await release.predictions("fab1")).values() for model in found}


async def test_the_model_servers_follow_what_people_decide(namespace: Namespace, *, kserve: bool) -> None:
    release = Release(namespace)
    await release.install("--set-json", f"rollout.extraEnv={SECONDS}", *(() if kserve else WITHOUT_KSERVE))
    await add_versions(release, ["v2", "broken"])
    predictors = Predictors(release, kserve=kserve)
    champions, candidates = partial(predictors.serving, "champion"), partial(predictors.serving, "candidate")
    await until(champions, [("0.5.1", True)])

    # A promotion under load.
    async with camera(release, "fab1", rate=50) as ledger:
        began = time.monotonic()
        await release.fabwafer("model", "promote", "v2")
        await until(champions, [("v2", True)])
        assert await predictors.answering("champion", IMAGE) == "v2"
        # The pod before answers for a moment longer: connections to it stay until it ends.
        await until(partial(models, release), {"0.5.1", "v2"})
        print(f"promoted: the first answer after {time.monotonic() - began:.0f} s")
    await ledger.check(release)

    # What somebody else names is repaired.
    [before] = await predictors.pods("champion")
    predictor = await predictors.predictor("wafer")
    named = {"annotations": {"fabwafer/model-version": "0.5.1"}}
    await predictor.patch({"spec": {"predictor": named} if kserve else {"template": {"metadata": named}}})
    await until(partial(predictors.named, "wafer"), "v2")
    await until(champions, [("v2", True)])
    assert [pod.name for pod in await predictors.pods("champion")] == [before.name]

    # A trial has a predictor of its own, and its answers are only recorded.
    await release.fabwafer("model", "candidate", "0.5.1", "--share", "1")
    await until(candidates, [("0.5.1", True)])
    assert await predictors.answering("candidate", IMAGE) == "0.5.1"
    async with camera(release, "fab2", rate=20, most=40) as ledger:
        pass
    await ledger.check(release)
    assert {tuple(models) for models in (await release.predictions("fab2")).values()} == {("v2",)}
    [trial] = await predictors.pods("candidate")
    await trial.delete(force=True)  # it may crash without harm
    async with camera(release, "fab3", rate=20, most=40) as ledger:
        pass
    await ledger.check(release)
    await release.fabwafer("model", "candidate", "--none")
    await until(candidates, [])
    await until(champions, [("v2", True)])

    # A version that cannot serve is refused with its reason, and the one before goes on.
    async def refused() -> object:
        listed = [json.loads(line) for line in (await release.fabwafer("model", "list", "--json")).splitlines()]
        return {one["version"]: one["states"] for one in listed}

    [before] = await predictors.pods("champion")
    async with camera(release, "fab4", rate=20) as ledger:
        await release.fabwafer("model", "promote", "broken")
        await until(refused, {"0.5.1": [], "broken": ["refused"], "v2": ["champion"]})
    await ledger.check(release)
    assert "cannot serve: ONNX Runtime cannot load" in " ".join((await release.fabwafer("model", "history")).split())
    await until(champions, [("v2", True)])
    assert [pod.name for pod in await predictors.pods("champion")] == [before.name]
