"""Values that cannot be installed are refused with a sentence that says which, and why."""

import re
from typing import Any

import pytest

from tests.charts.renderings import BUNDLED, merged, nested
from tests.support.helm import Helm, RefusedError

EXTERNAL = {"postgresql": {"enabled": False}, "externalDatabase": {"url": "postgresql://db/wafers"}}


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("nats.replicas", 2, "at '/nats/replicas': value must be one of 1, 3"),
        ("nats.syncInterval", "sometimes", "at '/nats/syncInterval': 'sometimes' does not match pattern"),
        ("nats.storage.size", 20, "at '/nats/storage/size': got number, want string"),
        ("nats.volume", {}, "at '/nats': additional properties 'volume' not allowed"),
        ("bridge.replicas", 0, "at '/bridge/replicas': minimum: got 0, want 1"),
        ("commonLabels", {"line": 3}, "at '/commonLabels/line': got number, want string"),
        ("imagePullSecrets", [{"name": "a"}], "at '/imagePullSecrets/0': got object, want string"),
        ("images.bridge.digest", "sha256:1", "at '/images/bridge/digest': 'sha256:1' does not match pattern"),
        ("imagePullPolicy", "Sometimes", "at '/imagePullPolicy': value must be one of 'IfNotPresent'"),
        ("predictor.runtime", "triton", "at '/predictor/runtime': value must be one of 'torchserve', 'kserve'"),
        ("mqtt.service.type", "nodeport", "at '/mqtt/service/type': value must be one of 'ClusterIP', 'NodePort'"),
        ("modelStore.url", "/models", "at '/modelStore/url': '/models' does not match pattern"),
        (
            "externalDatabase.url",
            "postgresql://me:secret@db/wafers",
            "at '/externalDatabase/url': 'postgresql://me:secret@db/wafers' does not match pattern",
        ),
        ("mqtt.tls.enabled", True, "mqtt.tls.existingSecret is missing"),
        ("mqtt.tls.existingSecret", "a", "mqtt.tls.existingSecret is set and mqtt.tls.enabled is false"),
        ("mqtt.tls.issuer.name", "a", "mqtt.tls.issuer.name is set and mqtt.tls.enabled is false"),
        (
            "mqtt.tls",
            {"enabled": True, "existingSecret": "a", "issuer": {"name": "b"}},
            "mqtt.tls.issuer.name and mqtt.tls.existingSecret are both set",
        ),
        ("mqtt.service.nodePort", 30000, "mqtt.service.nodePort is set and mqtt.service.type is ClusterIP"),
        ("mqtt.service.loadBalancerSourceRanges", ["10.0.0.0/8"], "only LoadBalancer has source ranges"),
        ("postgresql.enabled", False, "externalDatabase.url is missing"),
        (
            "externalDatabase.url",
            "postgresql://db/wafers",
            "externalDatabase.url is set and postgresql.enabled is true",
        ),
        ("modelStore.s3Endpoint", "http://minio", "modelStore.s3Endpoint is set and modelStore.url is not"),
        ("modelStore.s3Secret", "a", "modelStore.s3Secret is set and modelStore.url is not"),
        ("bridge.webhookSecret", "a", "bridge.webhookSecret is set and bridge.webhookUrl is not"),
        ("nats.storage.size", "10Gi", "nats.storage.size is 10Gi, less than the streams may hold"),
        ("nats.storage.size", "15000M", "three times nats.streamMaxBytes are 15032385536 bytes"),
        ("commonLabels", {"app.kubernetes.io/name": "x"}, "commonLabels.app.kubernetes.io/name is a label that the"),
        ("predictor.podAnnotations", {"fabwafer/model-version": "1"}, "`fabwafer model promote` names the version"),
    ],
)
def test_what_cannot_be_installed_is_refused_with_a_sentence(helm: Helm, path: str, value: Any, sentence: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(sentence)):
        helm.text(merged(BUNDLED, nested(path, value)))


def test_an_external_database_needs_a_secret_with_its_password(helm: Helm) -> None:
    with pytest.raises(RefusedError, match=re.escape("credentials.existingSecret is missing")):
        helm.text(EXTERNAL)


def test_all_that_is_wrong_is_said_at_once(helm: Helm) -> None:
    wrong = merged(BUNDLED, {"mqtt": {"tls": {"enabled": True}}, "modelStore": {"s3Secret": "a"}})
    with pytest.raises(RefusedError) as refused:
        helm.text(wrong)
    assert "mqtt.tls.existingSecret is missing" in str(refused.value)
    assert "modelStore.s3Secret is set" in str(refused.value)


def test_passwords_are_asked_for_where_helm_cannot_know_those_it_made(helm: Helm) -> None:
    with pytest.raises(RefusedError, match=re.escape("credentials.existingSecret is needed where helm cannot ask")):
        helm.text({})


def test_labels_that_the_chart_does_not_set_are_the_users_own(helm: Helm) -> None:
    assert "app.kubernetes.io/part-of: mes" in helm.text(
        merged(BUNDLED, {"commonLabels": {"app.kubernetes.io/part-of": "mes"}})
    )


@pytest.mark.parametrize("size", ["14.5Gi", "16G", "1Ti", "20000Mi"])
def test_a_disk_that_holds_the_streams_is_taken_in_any_unit(helm: Helm, size: str) -> None:
    assert helm.text(merged(BUNDLED, nested("nats.storage.size", size)))
