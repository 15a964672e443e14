"""The retraining Job as training-job/job.yaml starts it: killed, refused, or through."""

import pytest
from clusters import IMAGE
from kubernetes.client import ApiException
from namespaces import Content, Namespace

pytestmark = pytest.mark.timeout(1800)

REVIEWS = ("--reviews", "synthetic:45:77")
SHORT = ("--epochs", "1", "--maps-per-epoch", "128")
FILES = {
    "card.json",
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
"""What a version consists of; a picture of the contradicted labels as well, where there are any."""

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


def whole(content: Content) -> bool:
    """Tells whether there is nothing in `versions/` but whole versions."""
    found = {file for file in content.versions if not file.endswith("/contradicted.png")}
    return found == {f"{version}/{name}" for version in content.sound for name in FILES}


def test_the_namespace_takes_no_pod_that_may_be_root(namespace: Namespace) -> None:
    with pytest.raises(ApiException, match="violates PodSecurity"):
        namespace.run({"containers": [{"name": "root", "image": IMAGE}]})


def test_a_version_comes_into_the_store_and_waits_for_a_person(namespace: Namespace) -> None:
    job = namespace.retrain(*REVIEWS, *SHORT)
    end, _ = namespace.ended(job)
    [pod] = namespace.pods(job)
    said = namespace.log(pod.metadata.name)
    assert end == "Complete", said
    assert "the gold set is too small to decide" in said
    content = namespace.content()
    [version] = content.sound
    assert f"to promote it: fabwafer model promote {version}" in said
    assert whole(content)
    assert content.work == []


def test_a_pod_that_is_killed_is_followed_by_one_that_finishes_its_work(namespace: Namespace) -> None:
    job = namespace.retrain(*REVIEWS, "--epochs", "4", "--maps-per-epoch", "512")
    killed = namespace.pod(job)
    namespace.hear(killed, "epoch 2 of 4")
    namespace.kill(killed)
    assert whole(namespace.content()), "nothing of a version that is not finished"
    end, _ = namespace.ended(job)
    said = namespace.log(namespace.pod(job, after=killed))
    assert namespace.failures(job) == 1
    assert end == "Complete", said
    assert "epoch 4 of 4" in said, "the first pod was not finished when it was killed"
    assert "epoch 1 of 4" not in said, "its finished rounds are not lost"
    content = namespace.content()
    assert len(content.sound) == 1
    assert whole(content)
    assert content.work == []


def test_a_pod_that_leaves_a_drained_node_is_followed_by_another_and_counts_as_no_failure(
    namespace: Namespace,
) -> None:
    job = namespace.retrain(*REVIEWS, "--epochs", "100")
    evicted = namespace.pod(job)
    namespace.hear(evicted, "training on")
    namespace.evict(evicted)
    namespace.hear(namespace.pod(job, after=evicted), "training on")
    assert namespace.failures(job) == 0


def test_what_the_gate_refuses_fails_the_job_at_once_and_stays_out_of_the_store(namespace: Namespace) -> None:
    namespace.run_python(MISLABELLED)
    job = namespace.retrain("--reviews", "/store/mislabelled.npz", *SHORT, "--gold-maps", "1")
    assert namespace.ended(job) == ("Failed", "PodFailurePolicy")
    [pod] = namespace.pods(job)
    [container] = pod.status.container_statuses
    said = namespace.log(pod.metadata.name)
    assert container.state.terminated.exit_code == 3, said
    assert "the gate refuses retrained-" in said
    assert "of defects are called none, allowed is 2.00%" in said
    content = namespace.content()
    assert content.sound == content.versions == []
    assert any(file.endswith("/report/gate.json") for file in content.work)


def test_maps_that_cannot_be_used_fail_the_job_at_once(namespace: Namespace) -> None:
    job = namespace.retrain("--reviews", "/store/nothing.npz", *SHORT)
    assert namespace.ended(job) == ("Failed", "PodFailurePolicy")
    [pod] = namespace.pods(job)
    assert "/store/nothing.npz: no such file" in namespace.log(pod.metadata.name)
