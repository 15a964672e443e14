"""`fabwafer rollout` as a process: what it waits for, and how it ends. In a cluster: k8s-tests/test_rollout.py."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabwafer.records import Records
from fabwafer_local.ports import free_ports
from tests.support.running import answers, unready, wait_until

COMMAND = [sys.executable, "-c", "from fabwafer.commands.rollout import app; app()"]
NO_CLUSTER = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "none",
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "none", "user": {}}],
}


@pytest.fixture
def environment(migrated_sqlite: Path, tmp_path: Path) -> dict[str, str]:
    """Records with tables, and a cluster whose API does not answer."""
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    (tmp_path / "kubeconfig").write_text(json.dumps(NO_CLUSTER))
    (port,) = free_ports(1)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "FABWAFER"))}
    return outside | {
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "FABWAFER_DATABASE_URL": f"sqlite:///{tmp_path / 'records.db'}",
        "FABWAFER_NAMESPACE": "fab",
        "FABWAFER_METRICS_PORT": str(port),
    }


@pytest.fixture
def process(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process; its log is in `log`."""
    with (tmp_path / "log").open("wb") as log:
        started = subprocess.Popen(COMMAND, env=environment, stderr=log)
    yield started
    started.kill()
    started.wait()


def test_what_it_waits_for_is_told_by_readyz_and_it_ends_when_asked_to(
    process: subprocess.Popen[bytes], environment: dict[str, str], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{environment['FABWAFER_METRICS_PORT']}"
    log = tmp_path / "log"
    wait_until(lambda: "the records name no champion yet" in str(unready(url)), log.read_text)
    with Records(environment["FABWAFER_DATABASE_URL"]) as records:
        records.set_rollout("v1", author="kim")
    wait_until(lambda: "the Kubernetes API does not answer" in str(unready(url)), log.read_text)
    assert answers(f"{url}/healthz")
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("FABWAFER_NAMESPACE", "FABWAFER_NAMESPACE is not set"),
        ("KUBECONFIG", "expected to run in a pod, or KUBECONFIG to name the cluster"),
    ],
)
def test_what_is_missing_is_named(environment: dict[str, str], missing: str, sentence: str) -> None:
    del environment[missing]
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert sentence in done.stderr
