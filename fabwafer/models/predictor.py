"""The predictor: the object that Kubernetes starts the pods of a model server from, and its copy for a candidate.

With KServe it is an InferenceService, without it a Deployment. The pods learn the version that they serve from their
annotation, which the object names; see `fabwafer_handlers.prepare`.
"""

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from fabwafer.errors import FabwaferError

VERSION_ANNOTATION: Final = "fabwafer/model-version"
"""A pod's annotation with the version that it serves."""
ROLE_LABEL: Final = "fabwafer/serves"
"""A pod's label with its role, which the Services select by."""
COPY_ANNOTATION: Final = "fabwafer/copy"
"""The copy's annotation with a digest of what it was made from."""
MANAGER: Final = "fabwafer-rollout"

Role = Literal["champion", "candidate"]
NAMES: Final[dict[Role, str]] = {"champion": "wafer", "candidate": "wafer-candidate"}
"""The names of the predictors."""

_AUTOSCALER: Final = "serving.kserve.io/autoscalerClass"
# What tools keep on the objects that they own; the copy is none of theirs.
_OF_TOOLS: Final = (
    "meta.helm.sh/",
    "helm.sh/",
    "kubectl.kubernetes.io/last-applied-configuration",
    "argocd.argoproj.io/",
    "deployment.kubernetes.io/",
)

Manifest = dict[str, Any]


class PredictorError(FabwaferError):
    """A predictor that no candidate can be made from. The text says what was expected."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of predictor.

    Attributes:
        name: As manifests have it.
        group: Of its API.
        version: Of its API.
        plural: In the paths of its API.
        pods: The fields of the object that hold its pods' annotations and labels.
        deployment: The name of its Deployment, `{}` standing for its own.
    """

    name: str
    group: str
    version: str
    plural: str
    pods: tuple[str, ...]
    deployment: str


INFERENCE_SERVICE: Final = Kind(
    "InferenceService", "serving.kserve.io", "v1beta1", "inferenceservices", ("spec", "predictor"), "{}-predictor"
)
DEPLOYMENT: Final = Kind("Deployment", "apps", "v1", "deployments", ("spec", "template", "metadata"), "{}")


def named_version(kind: Kind, predictor: Manifest) -> str | None:
    """Return the version that a predictor names for its pods, or None where it names none."""
    version: str | None = _of_pods(kind, predictor, "annotations").get(VERSION_ANNOTATION)
    return version


def version_patch(kind: Kind, version: str) -> Manifest:
    """Return the JSON merge patch by which a predictor names a version, and changes nothing else."""
    patch: Manifest = {"annotations": {VERSION_ANNOTATION: version}}
    for field in reversed(kind.pods):
        patch = {field: patch}
    return patch


def candidate_copy(kind: Kind, predictor: Manifest, version: str) -> Manifest:
    """Return the predictor of a candidate: a copy of the champion's with one replica and a role and version of its own.

    Args:
        kind: The kind of both.
        predictor: The champion's, as the API returned it; it owns the copy, which is deleted with it.
        version: The candidate.

    Raises:
        PredictorError: It is a Deployment whose pods could not be told from the copy's.
    """
    spec = copy.deepcopy(predictor["spec"])
    found = predictor["metadata"]
    metadata: Manifest = {
        "name": NAMES["candidate"],
        "labels": _without_tools(found.get("labels")) | {"app.kubernetes.io/managed-by": MANAGER},
        "annotations": _without_tools(found.get("annotations")),
        "ownerReferences": [
            {
                "apiVersion": f"{kind.group}/{kind.version}",
                "kind": kind.name,
                "name": found["name"],
                "uid": found["uid"],
                "controller": True,
            }
        ],
    }
    if kind is DEPLOYMENT:
        selected = spec["selector"].get("matchLabels", {})
        if ROLE_LABEL not in selected:
            raise PredictorError(
                f"a candidate's pods could not be told from those of the Deployment {found['name']}: expected that it "
                f"selects them by the label {ROLE_LABEL}, it has {', '.join(selected) or 'none'}"
            )
        spec["replicas"] = 1
        selected[ROLE_LABEL] = "candidate"
    else:
        metadata["annotations"][_AUTOSCALER] = "none"
        metadata["labels"].pop(ROLE_LABEL, None)  # KServe hands an InferenceService's own labels on to the pods
        spec.pop("canary", None)
        spec["predictor"] |= {"minReplicas": 1, "maxReplicas": 1}
    copied: Manifest = {"metadata": metadata, "spec": spec}
    _of_pods(kind, copied, "annotations")[VERSION_ANNOTATION] = version
    _of_pods(kind, copied, "labels")[ROLE_LABEL] = "candidate"
    metadata["annotations"][COPY_ANNOTATION] = hashlib.sha256(json.dumps(copied, sort_keys=True).encode()).hexdigest()[
        :16
    ]
    return {"apiVersion": f"{kind.group}/{kind.version}", "kind": kind.name} | copied


def is_copy(kind: Kind, predictor: Manifest, wanted: Manifest) -> bool:
    """Tell whether a candidate's predictor was made from what `candidate_copy` returns now."""
    made_from = predictor["metadata"].get("annotations", {}).get(COPY_ANNOTATION)
    same = made_from == wanted["metadata"]["annotations"][COPY_ANNOTATION]
    return bool(same and named_version(kind, predictor) == named_version(kind, wanted))


def copy_patch(wanted: Manifest) -> list[Manifest]:
    """Return the JSON patch that makes a candidate's predictor what `candidate_copy` returned."""
    parts = {
        "/metadata/labels": wanted["metadata"]["labels"],
        "/metadata/annotations": wanted["metadata"]["annotations"],
    }
    return [{"op": "add", "path": path, "value": value} for path, value in (parts | {"/spec": wanted["spec"]}).items()]


def _of_pods(kind: Kind, predictor: Manifest, field: str) -> Manifest:
    """Return the pods' annotations or labels in a predictor, to read or to change."""
    found = predictor
    for name in (*kind.pods, field):
        if found.get(name) is None:
            found[name] = {}
        found = found[name]
    return found


def _without_tools(entries: dict[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (entries or {}).items() if not name.startswith(_OF_TOOLS)}
