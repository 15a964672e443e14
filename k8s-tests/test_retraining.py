"""What people reviewed, to a new version, to a champion: the chart's CronJob, run by hand."""

import asyncio
import json
from typing import Any

import pytest
from kr8s.asyncio.objects import CronJob, Job
from load import camera
from namespaces import PATIENCE, Namespace, log, wait
from predictors import Predictors
from release import Release

from fabwafer.maps.synthetic import sample

pytestmark = pytest.mark.timeout(1800)

# One short epoch: what is shown is the way of the reviews, not what the model learns from them.
_ARGS = ["--base", "synthetic:270", "--epochs", "1", "--maps-per-epoch", "128"]
_SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}}


async def retrain(release: Release) -> str:
    """Run the CronJob at once, as `kubectl create job --from` does; return its log."""
    namespace = release.namespace
    cronjob = await CronJob.get("fabwafer-retrain", namespace=namespace.name, api=namespace.api)
    template: dict[str, Any] = cronjob.spec.jobTemplate.to_dict()
    job = await namespace.create(Job, {"metadata": {"name": "retrain-now"}, "spec": template["spec"]})
    await wait(job, "condition=Complete", "condition=Failed")
    [pod] = await namespace.pods("batch.kubernetes.io/job-name=retrain-now")
    text = await log(pod)
    await job.refresh()
    assert dict(job.status).get("succeeded"), text
    return text


async def test_reviews_make_a_version_that_a_person_promotes(namespace: Namespace) -> None:
    release = Release(namespace)
    settings = {"args": _ARGS, "resources": _SMALL}
    await release.install("--set-json", f"retraining={json.dumps(settings)}")
    labels = [label for label, _ in sample(seed=1, n=9)]  # of the maps that the camera shows, one after the other
    async with camera(release, "fab1", rate=20, most=len(labels)) as ledger:
        pass
    await ledger.check(release)
    for imgid, label in zip(sorted(ledger.acknowledged), labels, strict=True):
        await release.fabwafer("review", "fab1", "camera", imgid, label, "--reviewer", "kim")
    printed = await retrain(release)
    [version] = [
        one["version"]
        for line in (await release.fabwafer("model", "list", "--json")).splitlines()
        if (one := json.loads(line))["version"] != "0.5.1"
    ]
    assert version in printed
    await release.fabwafer("model", "promote", version)
    async with asyncio.timeout(PATIENCE):
        while await Predictors(release, kserve=True).serving("champion") != [(version, True)]:  # noqa: ASYNC110
            await asyncio.sleep(1)
    await release.helm("test", "fabwafer")
