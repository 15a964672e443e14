"""What helm prints after an installation fits the installation."""

import re
import subprocess
from typing import Any

import pytest

from tests.charts.renderings import BUNDLED, NAMES, merged, values
from tests.support.helm import NAMESPACE, RELEASE, Helm, pods


def commands(notes: str) -> str:
    """The lines that are to be pasted."""
    return "\n".join(line for line in notes.splitlines() if line.startswith("  ") and "kubectl" in line)


@pytest.mark.parametrize("name", NAMES)
def test_each_command_names_the_namespace_and_what_is_installed(helm: Helm, name: str) -> None:
    notes, found = helm.notes(values(name)), helm.objects(values(name))
    lines = commands(notes).splitlines()
    assert len(lines) > 8
    assert [line for line in lines if f" -n {NAMESPACE} " not in line] == []
    there = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in found}
    named = set(re.findall(r"(?:deployment|service|statefulset)/[\w-]+", notes))
    assert "deployment/fabwafer-bridge" in named
    assert named <= there
    labels = [pod.labels.items() for pod in pods(found)]
    for selector in re.findall(r" -l (\S+)", notes):
        wanted = dict([selector.split("=")]).items()
        assert any(wanted <= some for some in labels), selector
    assert f"app.kubernetes.io/instance={RELEASE}" in notes


@pytest.mark.parametrize("name", NAMES)
def test_what_is_to_be_pasted_is_read_by_a_shell(helm: Helm, name: str) -> None:
    lines = [line for line in helm.notes(values(name)).splitlines() if line.startswith("  ")]
    done = subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, capture_output=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("given", "there", "absent"),
    [
        ({}, ["-p 1883", "get inferenceservice -n fab wafer"], ["--cafile", "8883", "own database", "models are in"]),
        ({"kserve": {"enabled": False}}, ["fabwafer/serves=champion"], ["inferenceservice"]),
        ({}, ["mqtt.service.type is ClusterIP"], ["Without TLS"]),
        ({"mqtt": {"service": {"type": "NodePort"}}}, ["{.spec.ports[0].nodePort}", "Without TLS"], ["is ClusterIP"]),
        ({"mqtt": {"service": {"type": "LoadBalancer"}}}, ["EXTERNAL-IP", "Without TLS"], ["nodePort"]),
        (
            {"mqtt": {"tls": {"enabled": True, "existingSecret": "mqtt-tls"}, "service": {"type": "LoadBalancer"}}},
            ["secret -n fab mqtt-tls", "--cafile ca.crt", "-p 8883", "port 8883 of its EXTERNAL-IP"],
            ["1883", "Without TLS"],
        ),
        (
            values("external"),
            ["in your own database, postgresql://db.fab.example:5432/wafers", "The models are in s3://models/fab"],
            ["generated", "BEFORE IT CAN WORK"],
        ),
        ({"predictor": {"replicas": 2}}, ["BEFORE IT CAN WORK", "predictor.replicas is 2, and modelStore"], []),
        (
            {"predictor": {"replicas": 2}, "modelStore": {"storage": {"accessModes": ["ReadWriteMany"]}}},
            [],
            ["BEFORE IT CAN WORK"],
        ),
    ],
)
def test_the_notes_say_what_the_values_make_of_it(
    helm: Helm, given: dict[str, Any], there: list[str], absent: list[str]
) -> None:
    notes = helm.notes(merged(BUNDLED, given))
    assert [text for text in there if text not in notes] == []
    assert [text for text in absent if text in notes] == []
