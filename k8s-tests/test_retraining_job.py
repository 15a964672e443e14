"""The retraining Job as the chart's CronJob starts it: killed, refused, or completed."""

import pytest
from namespaces import Namespace, log, until_logged
from retraining import Content, content, end_of, failures, pods_of, run_python, start

pytestmark = pytest.mark.timeout(1800)

REVIEWS = ("--reviews", "synthetic:45:77")
SHORT = ("--epochs", "1", "--maps-per-epoch", "128")
FILES = {
    "card.json",
    "likeness.npz",
    "model.onnx",
    "model-int8.onnx",
    "weights.npz",
    "wafer.mar",
    "report/gate.json",
    "report/evaluation.json",
    "report/confusion.png",
    "report/risk-coverage.png",
    "report/contradicted.csv",
    "report/champion/evaluation.json",
    "report/champion/confusion.png",
    "report/champion/risk-coverage.png",
    "report/champion/contradicted.csv",
}
"""The files of a version; a picture of the contradicted labels as well, where there are any."""

MISLABELLED = """
import numpy
from fabwafer_training.readers import read
from fabwafer_training.readers.npz import write_npz
from dataclasses import replace
from pathlib import Path
reviews = read("synthetic:270:77")
names = sorted(set(reviews.labels.tolist()))
wrong = numpy.array([names[names.index(label) - 1] for label in reviews.labels.tolist()])
write_npz(Path("/store/mislabelled.npz"), replace(reviews, labels=wrong))
"""
"""Reviews by somebody who mistook each class for another."""


@pytest.fixture
async def namespace(namespace: Namespace) -> Namespace:
    """A namespace with a model store."""
    await namespace.add_store()
    return namespace


def complete(stored: Content) -> bool:
    """Return whether `versions/` holds complete versions alone."""
    found = {file for file in stored.versions if not file.endswith("/contradicted.png")}
    return found == {f"{version}/{name}" for version in stored.sound for name in FILES}


async def test_a_version_comes_into_the_store_and_waits_for_a_person(namespace: Namespace) -> None:
    job = await start(namespace, *REVIEWS, *SHORT)
    end, _ = await end_of(job)
    [pod] = await namespace.pods(pods_of(job))
    output = await log(pod)
    assert end == "Complete", output
    assert "the gold set is too small to decide" in output
    stored = await content(namespace)
    [version] = stored.sound
    assert f"to promote it: fabwafer model promote {version}" in output
    assert complete(stored)
    assert stored.work == []


async def test_a_pod_that_is_killed_is_followed_by_one_that_finishes_its_work(namespace: Namespace) -> None:
    job = await start(namespace, *REVIEWS, "--epochs", "4", "--maps-per-epoch", "512")
    killed = await namespace.pod(pods_of(job))
    await until_logged(killed, "epoch 2 of 4")
    await killed.delete(force=True)
    assert complete(await content(namespace)), "nothing of a version that is not finished"
    end, _ = await end_of(job)
    output = await log(await namespace.pod(pods_of(job), other_than=killed.name))
    assert await failures(job) == 1
    assert end == "Complete", output
    assert "epoch 4 of 4" in output, "the first pod was not finished when it was killed"
    assert "epoch 1 of 4" not in output, "its finished epochs are not lost"
    stored = await content(namespace)
    assert len(stored.sound) == 1
    assert complete(stored)
    assert stored.work == []


async def test_a_pod_that_leaves_a_drained_node_is_followed_by_another_and_counts_as_no_failure(
    namespace: Namespace,
) -> None:
    job = await start(namespace, *REVIEWS, "--epochs", "100")
    evicted = await namespace.pod(pods_of(job))
    await until_logged(evicted, "training on")
    await namespace.evict(evicted)
    await until_logged(await namespace.pod(pods_of(job), other_than=evicted.name), "training on")
    assert await failures(job) == 0


async def test_what_the_gate_refuses_fails_the_job_at_once_and_stays_out_of_the_store(namespace: Namespace) -> None:
    await run_python(namespace, MISLABELLED)
    job = await start(namespace, "--reviews", "/store/mislabelled.npz", *SHORT, "--gold-maps", "1")
    assert await end_of(job) == ("Failed", "PodFailurePolicy")
    [pod] = await namespace.pods(pods_of(job))
    [container] = pod.status.containerStatuses
    output = await log(pod)
    assert container.state.terminated.exitCode == 3, output
    assert "the gate refuses retrained-" in output
    assert "of defects are called none, allowed is 2.00%" in output
    stored = await content(namespace)
    assert stored.sound == stored.versions == []
    assert any(file.endswith("/report/gate.json") for file in stored.work)


async def test_maps_that_cannot_be_used_fail_the_job_at_once(namespace: Namespace) -> None:
    job = await start(namespace, "--reviews", "/store/nothing.npz", *SHORT)
    assert await end_of(job) == ("Failed", "PodFailurePolicy")
    [pod] = await namespace.pods(pods_of(job))
    assert "/store/nothing.npz: no such file" in await log(pod)
