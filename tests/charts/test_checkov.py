"""checkov's rules for Kubernetes hold, but for those that charts/fabwafer/.checkov.yaml explains."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.charts.renderings import NAMES, values
from tests.support.helm import CHART, ROOT, Helm

# In a virtual environment of its own: it brings hundreds of megabytes, and pins what the project uses otherwise.
PROGRAM = ROOT / "build" / "checkov" / "bin" / "checkov"
RULES = CHART / ".checkov.yaml"


def checked(folder: Path) -> subprocess.CompletedProcess[str]:
    if not PROGRAM.exists():
        pytest.skip("needs checkov: `make checkov` installs it into build/")
    command = [str(PROGRAM), "--config-file", str(RULES), "--directory", str(folder)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_no_rule_is_broken_that_is_not_explained(helm: Helm, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.yaml").write_text(helm.text(values(name), "--skip-tests"))  # what ends needs no probes
    done = checked(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_rule_is_found(tmp_path: Path) -> None:
    pod = {"containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(manifest))
    done = checked(tmp_path)
    assert done.returncode == 1
    assert "CKV_K8S_16" in done.stdout, done.stdout + done.stderr


def test_each_rule_that_is_left_out_says_why() -> None:
    lines = RULES.read_text().splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("  - CKV")]
    assert len(rules) > 3
    assert [lines[number] for number in rules if not lines[number - 1].startswith("  # ")] == []
