"""Names are fixed, find each other, and stay strings whatever they look like."""

import re
from typing import Any

import pytest
import yaml

from fabwafer import __version__
from tests.charts.renderings import NAMES, merged, values
from tests.support.helm import CHART, NAMESPACE, RELEASE, ROOT, Helm, Object, pods

ALWAYS = {
    ("StatefulSet", "fabwafer-nats"),
    ("Service", "fabwafer-nats"),
    ("Service", "fabwafer-mqtt"),
    ("ConfigMap", "fabwafer-nats"),
    ("Deployment", "fabwafer-bridge"),
    ("Deployment", "fabwafer-rollout"),
    ("ServiceAccount", "fabwafer-rollout"),
    ("Role", "fabwafer-rollout"),
    ("RoleBinding", "fabwafer-rollout"),
    ("Service", "wafer-model"),
    ("Service", "wafer-model-candidate"),
}
DATABASE = {("StatefulSet", "fabwafer-postgresql"), ("Service", "fabwafer-postgresql")}
VOLUME = {("PersistentVolumeClaim", "fabwafer-models")}
KSERVE = {("InferenceService", "wafer")}


def kinds_and_names(objects: list[Object]) -> set[tuple[str, str]]:
    return {(found["kind"], found["metadata"]["name"]) for found in objects}


@pytest.fixture(scope="module", params=NAMES)
def each(helm: Helm, request: pytest.FixtureRequest) -> list[Object]:
    """The objects of one of the renderings."""
    return helm.objects(values(request.param))


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("bundled", ALWAYS | DATABASE | VOLUME | KSERVE | {("ServingRuntime", "fabwafer")}, {("Deployment", "wafer")}),
        ("external", ALWAYS | KSERVE, DATABASE | VOLUME | {("ServingRuntime", "fabwafer")}),
        ("without-kserve", ALWAYS | DATABASE | VOLUME | {("Deployment", "wafer")}, KSERVE),
        ("without-kserve-bucket", ALWAYS | DATABASE | {("Deployment", "wafer")}, KSERVE | VOLUME),
    ],
)
def test_the_objects_have_their_fixed_names(
    helm: Helm, name: str, there: set[tuple[str, str]], absent: set[tuple[str, str]]
) -> None:
    found = kinds_and_names(helm.objects(values(name)))
    assert there <= found
    assert not absent & found
    assert [one for kind, one in found if kind == "Job" and one.startswith("fabwafer-setup-")]


def test_every_object_is_of_the_release_and_has_a_name_of_its_own(each: list[Object]) -> None:
    assert len(kinds_and_names(each)) == len(each)
    for found in each:
        assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE
        assert found["metadata"].get("namespace", NAMESPACE) == NAMESPACE


def test_every_selector_finds_pods(each: list[Object]) -> None:
    labels = [pod.labels for pod in pods(each)]
    for found in each:
        name = found["metadata"]["name"]
        selector = found.get("spec", {}).get("selector")
        if not selector or name == "wafer-model-candidate":
            continue
        wanted = selector if found["kind"] == "Service" else selector["matchLabels"]
        assert any(wanted.items() <= some.items() for some in labels), (found["kind"], name)
        if found["kind"] in {"Deployment", "StatefulSet"}:
            own = found["spec"]["template"]["metadata"]["labels"]
            assert wanted.items() <= own.items(), name
            others = [some for some in labels if some != own]
            assert not any(wanted.items() <= some.items() for some in others), name


def test_the_models_services_find_the_champion_alone_and_the_candidate_alone(each: list[Object]) -> None:
    services = {found["metadata"]["name"]: found["spec"] for found in each if found["kind"] == "Service"}
    for name, role in {"wafer-model": "champion", "wafer-model-candidate": "candidate"}.items():
        assert services[name]["selector"] == {"app.kubernetes.io/instance": RELEASE, "fabwafer/serves": role}
        assert services[name]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080}]
    assert [pod.name for pod in pods(each) if pod.labels.get("fabwafer/serves") == "champion"] == ["wafer"]


def test_every_named_port_of_a_service_is_one_of_its_pods(each: list[Object]) -> None:
    all_pods = list(pods(each))
    for found in each:
        if found["kind"] != "Service" or found["metadata"]["name"] == "wafer-model-candidate":
            continue
        selector = found["spec"]["selector"].items()
        of = [pod for pod in all_pods if selector <= pod.labels.items()]
        ports = {
            (port["name"], port["containerPort"])
            for pod in of
            for one in pod.containers
            for port in one.get("ports", [])
        }
        for port in found["spec"]["ports"]:
            assert port["targetPort"] in {value for pair in ports for value in pair}, found["metadata"]["name"]


def test_another_set_up_has_another_name(helm: Helm) -> None:
    def name(given: dict[str, Any]) -> str:
        return next(one for kind, one in kinds_and_names(helm.objects(given)) if kind == "Job")

    given = values("bundled")
    assert name(given) == name(given)
    others: list[dict[str, Any]] = [{"nats": {"mqttMaxBytes": 1073741824}}, {"commonLabels": {"team": "yield"}}]
    others += [{"setup": {"podAnnotations": {"a": "b"}}}, {"images": {"bridge": {"tag": "2"}}}]
    assert len({name(given), *(name(merged(given, other)) for other in others)}) == 5


# Each is read as a number, a boolean, nothing or a date by one reader of YAML or another, where it has no quotes.
ODD = ["y", "n", "on", "off", "yes", "no", "true", "null", "1e3", "0x1f", "0o17", "1_000", "1.5", "12", "2026-01-01"]


def test_a_string_that_looks_like_something_else_stays_a_string(helm: Helm) -> None:
    def odd(values_: Any, at: int) -> Any:
        """The same values, with every text and every empty map and list replaced by odd names."""
        match values_:
            case str():
                return ODD[at % len(ODD)]
            case dict() if values_:
                return {key: odd(value, at + number) for number, (key, value) in enumerate(values_.items())}
            case {}:
                return {"key": ODD[at % len(ODD)]}
            case _:
                return values_

    given = odd(yaml.safe_load((CHART / "values.yaml").read_text()), 0)
    given = merged(given, {"mqtt": {"tls": {"enabled": True}, "service": {"type": "LoadBalancer"}}})
    given = merged(given, {"mqtt": {"tls": {"issuer": {"name": ""}}}, "backup": {"enabled": True}})
    given = merged(
        given,
        {"externalDatabase": {"url": ""}, "nats": {"storage": {"size": "99Gi"}}, "imagePullSecrets": ["1e3", "y"]},
    )
    kinds: list[dict[str, Any]] = [{}, {"kserve": {"enabled": False}}, {"predictor": {"runtime": "kserve"}}]
    for more in kinds:
        text = helm.text(merged(given, more), "--skip-schema-validation", release="1e3", namespace="12")
        wrong = [
            f"line {node.start_mark.line + 1}: {text.splitlines()[node.start_mark.line]}"
            for document in yaml.compose_all(text, Loader=yaml.CSafeLoader)
            for node in scalars(document)
            if node.value in set(ODD) - {"true", "12"} and node.style is None
        ]
        assert wrong == []


def scalars(node: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The values, and not the keys, below a node."""
    match node:
        case yaml.ScalarNode():
            return [node]
        case yaml.SequenceNode():
            return [found for below in node.value for found in scalars(below)]
        case yaml.MappingNode():
            return [found for _, below in node.value for found in scalars(below)]
    return []


def test_the_chart_has_the_version_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_variable_of_ours_is_one_of_the_programs_settings(each: list[Object]) -> None:
    folders = ("fabwafer", "bridge", "handlers", "training-job")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*") if file.suffix in {".py", ".conf"}]
    source = "\n".join(file.read_text() for file in files)
    names = {
        variable["name"].removeprefix("FABWAFER_")
        for pod in pods(each)
        for container in pod.containers
        for variable in container.get("env", [])
        if variable["name"].startswith("FABWAFER_")
    }
    assert len(names) > 10
    # The user of an address and the file with its password are found by the name of the address.
    known = {name: {name, re.sub("_(PASSWORD_FILE|USER)$", "_URL", name)} for name in names}
    read = set(re.findall(r"\bFABWAFER_(\w+)", source)) | {word.upper() for word in re.findall(r"\b[a-z_]+\b", source)}
    assert {name for name, accepted in known.items() if not accepted & read} == set()
