"""Every pod meets `restricted`, and takes what operators want to say about pods."""

from typing import Any

import pytest
import yaml

from tests.charts.renderings import BUNDLED, NAMES, merged, values
from tests.support.helm import CHART, Helm, Pod, pods

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
PARTS = [part for part, own in DEFAULTS.items() if isinstance(own, dict) and "nodeSelector" in own]
OURS = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "podAnnotations")
EXTRA = ("extraEnv", "extraVolumes", "extraVolumeMounts")
# The kinds of volumes that `restricted` allows and the chart needs.
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "secret"}


def marked(part: str) -> dict[str, Any]:
    """All that can be said about the pods of a part, each with the part's name in it."""
    term = {"matchExpressions": [{"key": part, "operator": "Exists"}]}
    return {
        "nodeSelector": {"for": part},
        "tolerations": [{"key": part, "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}},
        "priorityClassName": part,
        "podAnnotations": {"for": part},
        "extraEnv": [{"name": "FOR", "value": part}],
        "extraVolumes": [{"name": "extra", "configMap": {"name": part}}],
        "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    }


@pytest.fixture(scope="module", params=NAMES)
def each(helm: Helm, request: pytest.FixtureRequest) -> list[Pod]:
    """The pods of one of the renderings."""
    return list(pods(helm.objects(values(request.param))))


def test_every_pod_meets_restricted_and_writes_to_no_image(each: list[Pod]) -> None:
    assert {pod.name for pod in each} >= {"fabwafer-nats", "fabwafer-bridge", "fabwafer-rollout", "wafer"}
    for pod in each:
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True, pod.name
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 65532, pod.name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, pod.name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec), pod.name
        for volume in pod.spec.get("volumes", []):
            assert set(volume) - {"name"} <= VOLUMES, (pod.name, volume)
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (pod.name, container["name"])


def test_only_the_reconciler_has_a_token_of_the_cluster(each: list[Pod]) -> None:
    with_token = {pod.name for pod in each if pod.spec.get("automountServiceAccountToken") is not False}
    assert with_token == {"fabwafer-rollout"}
    assert all("serviceAccountName" not in pod.spec for pod in each if pod.name not in with_token)


def test_no_pod_gets_the_addresses_of_services_as_variables(each: list[Pod]) -> None:
    assert [pod.name for pod in each if pod.spec.get("enableServiceLinks") is not False] == []


def test_every_container_says_what_it_needs_at_least_and_at_most(each: list[Pod]) -> None:
    for pod in each:
        for container in pod.containers:
            resources = container["resources"]
            assert set(resources.get("requests", {})) >= {"cpu", "memory"}, (pod.name, container["name"])
            assert "memory" in resources.get("limits", {}), (pod.name, container["name"])


def test_every_long_running_container_is_asked_for_its_health(each: list[Pod]) -> None:
    for pod in each:
        if pod.spec.get("restartPolicy", "Always") == "Always":
            for container in pod.spec["containers"]:
                assert {"readinessProbe", "livenessProbe"} <= set(container), (pod.name, container["name"])


def test_every_part_can_be_placed_and_extended() -> None:
    lacking = {part: sorted({*OURS, *EXTRA, "resources"} - set(DEFAULTS[part])) for part in PARTS}
    assert {"nats", "postgresql", "setup", "bridge", "predictor", "rollout"} <= set(lacking)
    assert {part: names for part, names in lacking.items() if names} == {}


@pytest.mark.parametrize("name", ["bundled", "external", "without-kserve"])
def test_what_is_said_about_a_part_reaches_its_pods(helm: Helm, name: str) -> None:
    given = values(name)
    found = set()
    parts = {part: marked(part) for part in PARTS}
    for pod in pods(helm.objects(merged(given, parts))):
        part = pod.spec["nodeSelector"]["for"]
        found.add(part)
        wanted = marked(part)
        for setting in ("tolerations", "affinity", "priorityClassName"):
            assert pod.spec[setting] == wanted[setting], (pod.name, setting)
        if "helm.sh/hook" in pod.annotations:
            continue  # `helm test` needs a place, and ends
        assert pod.annotations["for"] == part
        assert wanted["extraVolumes"][0] in pod.spec["volumes"], pod.name
        with_variable = {one["name"] for one in pod.containers if wanted["extraEnv"][0] in one.get("env", [])}
        with_mount = {one["name"] for one in pod.containers if wanted["extraVolumeMounts"][0] in one["volumeMounts"]}
        assert with_variable == with_mount
        assert with_variable, pod.name
    assert found == {part for part in PARTS if merged(DEFAULTS, given)[part].get("enabled", True)}


def test_variables_and_volumes_reach_what_fetches_a_model_and_what_serves_it(helm: Helm) -> None:
    # A bucket behind a certificate of the fab's own needs both where the model is fetched.
    given = merged(values("external"), {"predictor": marked("predictor"), "setup": marked("setup")})
    for pod in pods(helm.objects(given)):
        if pod.name == "wafer" or pod.name.startswith("fabwafer-setup"):
            for container in pod.containers:
                assert {"name": "FOR", "value": pod.spec["nodeSelector"]["for"]} in container["env"], pod.name


def test_a_parts_annotations_win_over_the_charts(helm: Helm) -> None:
    given = merged(BUNDLED, {"bridge": {"podAnnotations": {"prometheus.io/scrape": "false"}}})
    [bridge] = [pod for pod in pods(helm.objects(given)) if pod.name == "fabwafer-bridge"]
    assert bridge.annotations == {"prometheus.io/scrape": "false", "prometheus.io/port": "9100"}


def test_common_labels_are_on_all_objects_and_pods(helm: Helm) -> None:
    for name in NAMES:
        found = helm.objects(merged(values(name), {"commonLabels": {"team": "yield"}}))
        assert [one["metadata"]["name"] for one in found if one["metadata"]["labels"].get("team") != "yield"] == []
        assert [pod.name for pod in pods(found) if pod.labels.get("team") != "yield"] == []


def test_common_labels_are_in_no_selector(helm: Helm) -> None:
    # A selector cannot be changed: an upgrade with another label would be refused.
    for one in helm.objects(merged(BUNDLED, {"commonLabels": {"team": "yield"}})):
        assert "team" not in str(one.get("spec", {}).get("selector")), one["metadata"]["name"]


def test_all_images_come_from_the_named_registry(helm: Helm) -> None:
    found = list(pods(helm.objects(values("nodes"))))
    for pod in found:
        assert pod.spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "second"}], pod.name
        for container in pod.containers:
            assert container["image"].startswith("registry.fab.example/mirror/"), (pod.name, container["name"])
            assert container["imagePullPolicy"] == "Always"
    [server] = [pod for pod in found if pod.name == "wafer"]
    digest = values("nodes")["images"]["handlers"]["digest"]
    assert {one["image"] for one in server.containers} == {f"registry.fab.example/mirror/fabwafer-handlers@{digest}"}


def test_an_image_without_a_tag_is_of_the_charts_version(helm: Helm) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    found = {one["image"] for pod in pods(helm.objects(BUNDLED)) for one in pod.containers}
    assert {f"localhost/fabwafer-bridge:{version}", f"localhost/fabwafer-handlers:{version}"} <= found
    given = merged(BUNDLED, {"images": {"bridge": {"registry": "r.example", "repository": "b", "tag": "1e3"}}})
    assert "r.example/b:1e3" in {one["image"] for pod in pods(helm.objects(given)) for one in pod.containers}


def test_a_gpu_can_be_asked_for(helm: Helm) -> None:
    [server] = [pod for pod in pods(helm.objects(values("nodes"))) if pod.name == "wafer"]
    assert server.spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert server.spec["nodeSelector"] == {"accelerator": "gpu"}
