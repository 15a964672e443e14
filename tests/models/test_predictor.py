"""How a predictor names the version of its pods, and what a candidate's copy of it has of its own."""

import copy
from typing import Any

import pytest

from fabwafer.models.predictor import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    Kind,
    PredictorError,
    candidate_copy,
    copy_patch,
    is_copy,
    named_version,
    version_patch,
)

METADATA = {
    "name": "wafer",
    "uid": "1234",
    "labels": {"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "fabwafer-1", "team": "yield"},
    "annotations": {
        "meta.helm.sh/release-name": "fabwafer",
        "deployment.kubernetes.io/revision": "3",
        "serving.kserve.io/deploymentMode": "Standard",
    },
}
POD = {"containers": [{"name": "server", "image": "handlers:1"}]}


def inference_service() -> dict[str, Any]:
    predictor = {"minReplicas": 2, "maxReplicas": 5, "labels": {"fabwafer/serves": "champion"}, **POD}
    return copy.deepcopy({"metadata": METADATA, "spec": {"predictor": predictor}, "status": {}})


def deployment() -> dict[str, Any]:
    labels = {"app": "wafer", "fabwafer/serves": "champion"}
    template = {"metadata": {"labels": labels}, "spec": POD}
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    return copy.deepcopy({"metadata": METADATA, "spec": spec, "status": {}})


BOTH = pytest.mark.parametrize(
    ("kind", "predictor"),
    [(INFERENCE_SERVICE, inference_service()), (DEPLOYMENT, deployment())],
    ids=["InferenceService", "Deployment"],
)


def test_naming_a_version_changes_the_annotation_of_the_pods_and_nothing_else() -> None:
    annotations = {"annotations": {"fabwafer/model-version": "v2"}}
    assert version_patch(INFERENCE_SERVICE, "v2") == {"spec": {"predictor": annotations}}
    assert version_patch(DEPLOYMENT, "v2") == {"spec": {"template": {"metadata": annotations}}}
    assert named_version(INFERENCE_SERVICE, version_patch(INFERENCE_SERVICE, "v2")) == "v2"
    assert named_version(DEPLOYMENT, version_patch(DEPLOYMENT, "v2")) == "v2"
    assert named_version(INFERENCE_SERVICE, inference_service()) is None
    assert named_version(DEPLOYMENT, deployment()) is None


@BOTH
def test_a_candidates_copy_has_a_role_a_version_and_one_replica_of_its_own(
    kind: Kind, predictor: dict[str, Any]
) -> None:
    before = copy.deepcopy(predictor)
    made = candidate_copy(kind, predictor, "v2")
    assert predictor == before
    metadata = made["metadata"]
    assert (metadata["name"], named_version(kind, made)) == ("wafer-candidate", "v2")
    [owner] = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == (kind.name, "wafer", "1234")
    # What Helm goes by is left out, what the fab goes by is not.
    assert metadata["labels"] == {"app.kubernetes.io/managed-by": "fabwafer-rollout", "team": "yield"}
    assert metadata["annotations"].keys() - {"serving.kserve.io/autoscalerClass"} == {
        "serving.kserve.io/deploymentMode",
        "fabwafer/copy",
    }
    if kind is DEPLOYMENT:
        labels = {"app": "wafer", "fabwafer/serves": "candidate"}
        assert made["spec"]["replicas"] == 1
        assert made["spec"]["selector"]["matchLabels"] == made["spec"]["template"]["metadata"]["labels"] == labels
        assert made["spec"]["template"]["spec"] == POD
    else:
        pods = made["spec"]["predictor"]
        assert (pods["minReplicas"], pods["maxReplicas"], pods["labels"]) == (1, 1, {"fabwafer/serves": "candidate"})
        assert pods["containers"] == POD["containers"]


@BOTH
def test_a_copy_is_made_anew_for_another_version_or_image_and_not_for_another_number_of_replicas(
    kind: Kind, predictor: dict[str, Any]
) -> None:
    made = candidate_copy(kind, predictor, "v2")
    same = copy.deepcopy(predictor)
    same["spec"].get("predictor", same["spec"]).update({"replicas": 7} if kind is DEPLOYMENT else {"minReplicas": 7})
    same["metadata"]["labels"]["helm.sh/chart"] = "fabwafer-2"
    assert is_copy(kind, made, candidate_copy(kind, same, "v2"))
    assert not is_copy(kind, made, candidate_copy(kind, predictor, "v3"))
    newer = copy.deepcopy(predictor)
    pods = newer["spec"]["template"]["spec"] if kind is DEPLOYMENT else newer["spec"]["predictor"]
    pods["containers"][0]["image"] = "handlers:2"
    wanted = candidate_copy(kind, newer, "v2")
    assert not is_copy(kind, made, wanted)
    changed = {change["path"]: change["value"] for change in copy_patch(wanted)}
    assert changed["/spec"] == wanted["spec"]
    assert changed["/metadata/annotations"] == wanted["metadata"]["annotations"]
    # Somebody names another version on the copy by hand.
    made["spec"] = candidate_copy(kind, predictor, "v9")["spec"]
    assert not is_copy(kind, made, candidate_copy(kind, predictor, "v2"))


def test_a_deployment_that_would_take_a_candidates_pods_for_its_own_is_refused() -> None:
    wide = deployment()
    wide["spec"]["selector"] = {"matchLabels": {"app": "wafer"}}
    with pytest.raises(PredictorError, match="selects them by the label fabwafer/serves, it has app"):
        candidate_copy(DEPLOYMENT, wide, "v2")
