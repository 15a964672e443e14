"""What the reconciler of a cluster decides, on a stand-in for the API; k8s-tests/test_rollout.py has a real one."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from fabwafer.models.cluster import Cluster, ClusterError
from fabwafer.models.kubernetes import ClusterReconciler, NotServingError
from fabwafer.models.predictor import INFERENCE_SERVICE, ROLE_LABEL, VERSION_ANNOTATION, Role, named_version
from fabwafer.models.rollout import RolloutError, current
from fabwafer.records import Records, SchemaError
from tests.models.test_predictor import inference_service

READY_SECONDS = 300.0


class Namespace(Cluster):
    """A namespace in memory. Its pods are what a test says."""

    def __init__(self) -> None:
        super().__init__(client.ApiClient(client.Configuration()), "fab", INFERENCE_SERVICE)
        self.predictors = {"wafer": inference_service()}
        self.running: list[dict[str, Any]] = []
        self.requests: list[str] = []

    def predictor(self, name: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.predictors.get(name))

    def deployment(self, predictor: str) -> dict[str, Any] | None:
        failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
        return {"status": {"conditions": [{"type": "Available", "status": "True"}, failure]}}

    def create(self, predictor: dict[str, Any]) -> None:
        self.requests.append("create")
        self.predictors[predictor["metadata"]["name"]] = copy.deepcopy(predictor)

    def patch(self, name: str, patch: dict[str, Any] | list[dict[str, Any]]) -> None:
        self.requests.append("patch")
        if isinstance(patch, dict):
            self.predictors[name]["spec"]["predictor"] |= patch["spec"]["predictor"]
        else:
            values = {change["path"]: change["value"] for change in patch}
            self.predictors[name]["metadata"]["annotations"] = values["/metadata/annotations"]
            self.predictors[name]["spec"] = values["/spec"]

    def delete(self, name: str) -> None:
        self.requests.append("delete")
        del self.predictors[name]

    def pods(self, role: Role) -> list[dict[str, Any]]:
        return [pod for pod in self.running if pod["metadata"]["labels"][ROLE_LABEL] == role]

    def events(self, pod: str) -> list[dict[str, Any]]:
        return [{"type": "Warning", "message": f"{pod} has no volume"}]

    def last_line(self, pod: str, container: str) -> str:
        return ""

    def named(self, name: str = "wafer") -> str | None:
        return named_version(INFERENCE_SERVICE, self.predictors[name])

    def runs(self, version: str, *, ready: bool = True, role: Role = "champion") -> None:
        """Adds a pod."""
        metadata = {"name": version, "annotations": {VERSION_ANNOTATION: version}, "labels": {ROLE_LABEL: role}}
        conditions = [{"type": "Ready", "status": str(ready)}]
        self.running.insert(0, {"metadata": metadata, "status": {"conditions": conditions}})


class Watched:
    """A reconciler with records and a namespace of its own, and a clock that a test moves."""

    def __init__(self, url: str) -> None:
        self.records, self.namespace = Records(url), Namespace()
        self.sentences: list[str] = []
        self.now = 0.0
        self.restart()

    def restart(self) -> None:
        self.reconciler = ClusterReconciler(
            self.records, self.namespace, self.sentences.append, ready_seconds=READY_SECONDS, clock=lambda: self.now
        )

    async def step(self, later: float = 0.0) -> None:
        self.now += later
        await self.reconciler.step()

    async def serve(self, version: str) -> None:
        """Have a version serve."""
        self.records.set_rollout(version, author="kim")
        self.namespace.running.clear()
        self.namespace.runs(version)
        await self.step()

    def wanted(self) -> tuple[str, str | None, str | None, str | None]:
        rollout = current(self.records)
        return rollout.champion, rollout.candidate, rollout.refused, rollout.reason


@pytest.fixture
def watched(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Watched]:
    """A namespace where nothing is named and no pod runs."""
    (tmp_path / "records.db").write_bytes(migrated_sqlite.read_bytes())
    made = Watched(f"sqlite:///{tmp_path / 'records.db'}")
    yield made
    made.records.close()


async def test_the_champion_is_named_once_and_named_again_after_somebody_changed_it(watched: Watched) -> None:
    await watched.serve("v1")
    await watched.step()
    assert (watched.namespace.named(), watched.namespace.requests) == ("v1", ["patch"])
    assert watched.sentences == [
        "InferenceService wafer is to serve model v1 from now on, before it none",
        "model v1 serves from now on",
    ]
    watched.namespace.patch("wafer", {"spec": {"predictor": {"annotations": {VERSION_ANNOTATION: "v9"}}}})
    await watched.step()
    assert watched.namespace.named() == "v1"


async def test_a_version_that_is_not_ready_in_time_is_put_back_and_recorded(watched: Watched) -> None:
    await watched.serve("v1")
    watched.records.set_rollout("v2", author="kim")
    watched.namespace.runs("v2", ready=False)
    for later in (0, READY_SECONDS - 1):
        await watched.step(later)
        assert (watched.wanted()[0], watched.namespace.named()) == ("v2", "v2")
    await watched.step(1)
    assert watched.wanted() == ("v1", None, "v2", "its pod v2: v2 has no volume")
    await watched.step()
    assert watched.namespace.named() == "v1"
    watched.restart()  # it does not try for ever, not even after a restart
    await watched.step(READY_SECONDS)
    assert (watched.wanted()[0], watched.namespace.named()) == ("v1", "v1")
    watched.records.set_rollout("v2", author="kim")  # somebody tries again, and it has its time again
    for later in (0, READY_SECONDS - 1):
        await watched.step(later)
        assert watched.namespace.named() == "v2"
    watched.namespace.runs("v2")
    await watched.step(1)
    assert (watched.wanted()[0], watched.sentences[-1]) == ("v2", "model v2 serves from now on")


async def test_what_is_put_back_is_the_version_that_serves_and_not_one_that_was_only_named(watched: Watched) -> None:
    await watched.serve("v1")
    for version in ("v2", "v3"):
        watched.records.set_rollout(version, author="kim")
        await watched.step()
    watched.restart()
    await watched.step()
    await watched.step(READY_SECONDS)
    assert watched.wanted() == ("v1", None, "v3", "none of its pods was made: exceeded quota")


async def test_a_rollback_to_a_version_that_cannot_serve_any_more_is_undone_too(watched: Watched) -> None:
    await watched.serve("v1")
    await watched.serve("v2")
    watched.records.set_rollout("v1", author="kim")
    watched.restart()
    await watched.step()
    await watched.step(READY_SECONDS)
    assert watched.wanted()[:3] == ("v2", None, "v1")


async def test_where_no_old_pod_is_left_the_version_that_served_last_is_put_back(watched: Watched) -> None:
    await watched.serve("v1")
    watched.records.set_rollout("v2", author="kim")
    watched.namespace.running.clear()  # as the strategy Recreate has it
    await watched.step()
    await watched.step(READY_SECONDS)
    assert watched.wanted()[:3] == ("v1", None, "v2")


async def test_an_outage_of_the_champion_is_no_refusal(watched: Watched) -> None:
    await watched.serve("v1")
    await watched.serve("v2")
    watched.namespace.running.clear()
    for restarted in (False, True):
        if restarted:
            watched.restart()
        await watched.step()
        with pytest.raises(NotServingError, match="model v2 does not serve: none of its pods was made: exceeded quota"):
            await watched.step(READY_SECONDS)
        assert watched.wanted() == ("v2", None, None, None)


async def test_a_candidate_gets_a_predictor_of_its_own_until_its_trial_ends(watched: Watched) -> None:
    await watched.serve("v1")
    watched.records.set_rollout("v1", candidate="v2", share=0.1, author="kim")
    await watched.step()
    assert (watched.namespace.named(), watched.namespace.named("wafer-candidate")) == ("v1", "v2")
    watched.namespace.runs("v2", role="candidate")
    await watched.step()
    assert watched.sentences[-1] == "model v2 is on trial from now on"
    watched.namespace.running.pop(0)  # it crashes, for as long as it likes
    await watched.step()
    await watched.step(READY_SECONDS)
    assert watched.wanted()[:2] == ("v1", "v2")
    watched.namespace.predictors["wafer"]["spec"]["predictor"]["containers"][0]["image"] = "handlers:2"
    requests = len(watched.namespace.requests)
    for _ in range(2):
        await watched.step()
    assert watched.namespace.requests[requests:] == ["patch"]
    [container] = watched.namespace.predictors["wafer-candidate"]["spec"]["predictor"]["containers"]
    assert container["image"] == "handlers:2"
    watched.records.set_rollout("v1", author="kim")
    await watched.step()
    assert list(watched.namespace.predictors) == ["wafer"]


async def test_a_candidate_that_is_not_ready_in_time_ends_its_trial_and_nothing_else(watched: Watched) -> None:
    await watched.serve("v1")
    watched.records.set_rollout("v1", candidate="v2", share=0.1, author="kim")
    watched.namespace.runs("v2", ready=False, role="candidate")
    await watched.step()
    await watched.step(READY_SECONDS)
    assert watched.wanted() == ("v1", None, "v2", "its pod v2: v2 has no volume")
    await watched.step()
    assert list(watched.namespace.predictors) == ["wafer"]


async def test_a_champion_is_looked_after_where_a_candidate_cannot_be_made(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise ClusterError("the Kubernetes API refuses to create wafer-candidate: exceeded quota")

    monkeypatch.setattr(watched.namespace, "create", refuse)
    watched.records.set_rollout("v1", candidate="v2", share=0.1, author="kim")
    watched.namespace.runs("v1")
    with pytest.raises(ClusterError, match="exceeded quota"):
        await watched.step()
    assert watched.sentences[-1] == "model v1 serves from now on"


async def test_what_is_missing_is_named_in_a_sentence(watched: Watched, tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="the records name no champion yet"):
        await watched.step()
    watched.records.set_rollout("v1", author="kim")
    watched.namespace.predictors.clear()
    with pytest.raises(NotServingError, match="expected the InferenceService wafer in the namespace fab"):
        await watched.step()
    with Records(f"sqlite:///{tmp_path / 'none.db'}") as records:
        early = ClusterReconciler(records, watched.namespace, watched.sentences.append, ready_seconds=1)
        with pytest.raises(SchemaError, match="has no tables yet"):
            await early.step()


async def test_an_api_that_does_not_answer_is_named_and_asked_again(watched: Watched) -> None:
    watched.records.set_rollout("v1", author="kim")
    nowhere = Cluster(client.ApiClient(client.Configuration(host="http://127.0.0.1:1")), "fab", INFERENCE_SERVICE)
    reconciler = ClusterReconciler(watched.records, nowhere, watched.sentences.append, ready_seconds=1)
    for _ in range(2):
        with pytest.raises(ClusterError, match="the Kubernetes API does not answer: "):
            await reconciler.step()
