"""Every rendering is what Kubernetes accepts, from the oldest supported version to the newest."""

import re
from functools import lru_cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.charts.renderings import FILES, NAMES, values
from tests.support.helm import CHART, Helm

OLDEST = re.search(r"[0-9]+\.[0-9]+", yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"])
NEWEST = kubernetes_validate.latest_version()
# Custom resources have no schema there.
CUSTOM = {"InferenceService", "ServingRuntime", "Certificate"}


@pytest.fixture(scope="module", autouse=True)
def _read_each_schema_once() -> None:
    utils = kubernetes_validate.utils
    utils.schema_contents = lru_cache(maxsize=None)(utils.schema_contents)


def test_the_oldest_version_is_the_one_that_the_chart_asks_for() -> None:
    assert OLDEST
    assert OLDEST[0] == "1.31"


@pytest.mark.parametrize("version", ["1.31", NEWEST])
@pytest.mark.parametrize("name", NAMES)
def test_every_object_fits_the_schemas_of_kubernetes(helm: Helm, name: str, version: str) -> None:
    found = helm.objects(values(name), "--kube-version", version)
    assert len(found) > 10
    wrong = []
    for one in found:
        if one["kind"] not in CUSTOM:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{one['kind']} {one['metadata']['name']}: {error.json_path}: {error.message}")
    assert wrong == []


def test_the_schemas_refuse_a_field_that_kubernetes_does_not_know() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError, match="prots"):
        kubernetes_validate.validate(service, NEWEST, strict=True)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_helm_lint_finds_nothing(helm: Helm, file: Path) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART, "-f", file)
