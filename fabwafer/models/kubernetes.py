"""The reconciler of a cluster: Kubernetes starts the pods of the version that the records name champion or candidate.

It names the version on the predictor `wafer`, makes and removes the predictor `wafer-candidate`, and watches the pods.
A version whose pods do not become ready in time is put back and recorded as refused.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from prometheus_client import Counter, Gauge
from pydantic import Field

from fabwafer.errors import FabwaferError
from fabwafer.models import pods
from fabwafer.models.cluster import Cluster
from fabwafer.models.predictor import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    NAMES,
    Kind,
    Manifest,
    Role,
    candidate_copy,
    copy_patch,
    is_copy,
    named_version,
    version_patch,
)
from fabwafer.models.reconciler import ReconcileLoop
from fabwafer.models.rollout import current, refuse
from fabwafer.records import Records, Rollout
from fabwafer.service.settings import DatabaseSettings, MetricsSettings

LOOK_SECONDS: Final = 2.0
"""Pause between two looks at the records and the pods."""

READY_PODS: Final = Gauge(
    "fabwafer_rollout_ready_pods",
    "Pods of the model server that are ready, by the version they serve.",
    ["role", "version"],
)
REFUSALS: Final = Counter("fabwafer_rollout_refusals_total", "Versions that could not serve.", ["role"])
for _role in NAMES:
    REFUSALS.labels(_role)


class NotServingError(FabwaferError):
    """The champion does not serve, and there is none to put back. The text says why."""


class RolloutSettings(DatabaseSettings, MetricsSettings):
    """Settings of the reconciler in a cluster; each is read from FABWAFER_<NAME>."""

    namespace: str
    """The namespace of the predictors."""
    kserve: bool = True
    """Whether a predictor is an InferenceService of KServe; else it is a Deployment."""
    ready_seconds: float = Field(default=300, gt=0)
    """Seconds within which a pod of a version must be ready; then the version before it is put back."""

    @property
    def kind(self) -> Kind:
        """The kind of the predictors."""
        return INFERENCE_SERVICE if self.kserve else DEPLOYMENT


class ClusterReconciler:
    """Brings the predictors of a namespace to the champion, and to the candidate on trial beside it.

    Kubernetes replaces the champion's pods one after another, and no request waits. A version is refused where none of
    its pods is ready in time: the version before it, which still has ready pods, is the champion again. A candidate has
    a predictor of its own, a copy of the champion's, made anew when that changes; once it was ready it may crash.

    Args:
        records: They name champion and candidate.
        cluster: The namespace.
        say: Called with a sentence for people on each change and each new failure.
        ready_seconds: Seconds within which a pod of a version must be ready.
        look_seconds: Pause between two looks.
        clock: Returns seconds.
    """

    def __init__(
        self,
        records: Records,
        cluster: Cluster,
        say: Callable[[str], None],
        *,
        ready_seconds: float,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records, self._cluster, self._say = records, cluster, say
        self._ready_seconds, self._clock = ready_seconds, clock
        self._loop = ReconcileLoop(self.step, say, look_seconds)
        self._checked = False
        self._seen: dict[Role, str] = {}
        """The version of each role that was ready."""
        self._waiting: dict[Role, tuple[str, float]] = {}
        """The version of each role that was not ready yet, and since when."""
        self._counted: set[tuple[str, str]] = set()

    @property
    def unready(self) -> str | None:
        """Why the champion and the candidate cannot be looked after, or None."""
        return self._loop.trouble

    async def run(self) -> None:
        """Reconcile again and again; return only when cancelled."""
        await self._loop.run()

    async def step(self) -> None:
        """Do what is to be done now, and look how far it is.

        Raises:
            ClusterError: The Kubernetes API does not answer, or refuses something.
            NotServingError: The champion does not serve, the chart made no predictor, or there is none to put back.
            PredictorError: The predictor is none that a candidate can be made from.
            RecordsUnavailableError: The records do not answer.
            RolloutChangedError: Somebody changed the rollout at the moment of a refusal.
            RolloutError: The records name no champion.
            SchemaError: The tables of the records do not fit this program, or are not there yet.
        """
        await asyncio.to_thread(self._step)

    def _step(self) -> None:
        if not self._checked:
            self._records.check()
            self._checked = True
        rollout = current(self._records)
        kind, name = self._cluster.kind, NAMES["champion"]
        predictor = self._cluster.predictor(name)
        if predictor is None:
            raise NotServingError(
                f"expected the {kind.name} {name} in the namespace {self._cluster.namespace}, which the chart makes; "
                "there is none"
            )
        named = named_version(kind, predictor)
        if named != rollout.champion:
            self._cluster.patch(name, version_patch(kind, rollout.champion))
            self._say(
                f"{kind.name} {name} is to serve model {rollout.champion} from now on, before it {named or 'none'}"
            )
        try:
            self._follow_champion(rollout)
        finally:  # whatever is wrong with one of them, the other does not wait for it
            self._follow_candidate(rollout, predictor)

    def _follow_champion(self, rollout: Rollout) -> None:
        champion = rollout.champion
        found = self._cluster.pods("champion")
        ready = self._count("champion", found)
        if champion in ready:
            if self._seen.get("champion") != champion:
                self._say(f"model {champion} serves from now on")
            self._seen["champion"] = champion
            self._waiting.pop("champion", None)
        elif self._is_late("champion", champion):
            reason = self._reason("champion", champion, found)
            before = self._before(champion, ready)
            if before is None:
                raise NotServingError(f"model {champion} does not serve: {reason}")
            self._refuse("champion", rollout, reason, before)
            self._say(f"model {champion} was refused, {before} goes on serving: {reason}")

    def _before(self, champion: str, ready: set[str]) -> str | None:
        """Return the version to put back: one that still has ready pods, or the one that served last."""
        last = self._seen.get("champion")
        for version in (last, *(rollout.champion for rollout in self._records.rollouts())):
            if version in ready:
                return version
        return last if last != champion else None

    def _follow_candidate(self, rollout: Rollout, champion: Manifest) -> None:
        kind, name, wanted = self._cluster.kind, NAMES["candidate"], rollout.candidate
        predictor = self._cluster.predictor(name)
        if predictor is not None and "deletionTimestamp" in predictor["metadata"]:
            return
        if wanted is None:
            self._seen.pop("candidate", None)
            self._waiting.pop("candidate", None)
            self._count("candidate", [])
            if predictor is not None:
                self._cluster.delete(name)
                self._say(f"{kind.name} {name} is removed: no version is on trial")
            return
        copy = candidate_copy(kind, champion, wanted)
        if predictor is None:
            self._cluster.create(copy)
            self._say(f"{kind.name} {name} is made, for model {wanted}")
        elif not is_copy(kind, predictor, copy):
            self._cluster.patch(name, copy_patch(copy))
            self._say(f"{kind.name} {name} is made anew, for model {wanted}")
        found = self._cluster.pods("candidate")
        if wanted in self._count("candidate", found):
            if self._seen.get("candidate") != wanted:
                self._say(f"model {wanted} is on trial from now on")
            self._seen["candidate"] = wanted
            self._waiting.pop("candidate", None)
        elif self._seen.get("candidate") != wanted and self._is_late("candidate", wanted):
            reason = self._reason("candidate", wanted, found)
            self._refuse("candidate", rollout, reason, rollout.champion)
            self._say(f"model {wanted} was refused, its trial ends: {reason}")

    def _is_late(self, role: Role, version: str) -> bool:
        """Tell whether a version that is not ready has had its time, which begins with the first question."""
        now = self._clock()
        waiting, since = self._waiting.get(role, ("", now))
        if waiting != version:
            since = now
        self._waiting[role] = (version, since)
        return now - since >= self._ready_seconds

    def _refuse(self, role: Role, rollout: Rollout, reason: str, champion: str) -> None:
        version = self._waiting[role][0]
        refuse(self._records, rollout, version, reason, champion=champion)
        self._waiting.pop(role)
        REFUSALS.labels(role).inc()

    def _reason(self, role: Role, version: str, found: Iterable[Manifest]) -> str:
        """Return why no pod of a version is ready: what holds up its newest pod, or what kept one from being made."""
        for pod in found:
            if pods.version_of(pod) == version and "deletionTimestamp" not in pod["metadata"]:
                name = pod["metadata"]["name"]
                return pods.reason(pod, self._cluster.events(name), partial(self._cluster.last_line, name))
        for made in (self._cluster.deployment(NAMES[role]), self._cluster.predictor(NAMES[role])):
            for condition in (made or {}).get("status", {}).get("conditions", []):
                failed = condition.get("status") == ("True" if condition["type"] == "ReplicaFailure" else "False")
                if failed and condition.get("message"):
                    return f"none of its pods was made: {condition['message']}"[: pods.LONGEST_REASON]
        return "none of its pods was made"

    def _count(self, role: Role, found: Iterable[Manifest]) -> set[str]:
        """Count the ready pods in the metrics; return which versions they serve."""
        ready = [version for pod in found if pods.is_ready(pod) and (version := pods.version_of(pod))]
        for known in [one for one in self._counted if one[0] == role and one[1] not in ready]:
            READY_PODS.remove(*known)
            self._counted.discard(known)
        for version in ready:
            READY_PODS.labels(role, version).set(ready.count(version))
            self._counted.add((role, version))
        return set(ready)
