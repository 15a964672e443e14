"""The cluster that the tests run on: the one of $KUBECONFIG, or one that kind makes for them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import images

_KIND = ["kind", "--quiet"]
_NAME = "fabwafer-k8s-tests"


class NoClusterError(RuntimeError):
    """There is no cluster to use. The text says what to do."""


@contextmanager
def running_cluster(folder: Path) -> Iterator[Path]:
    """Yield the kubeconfig of the cluster in $KUBECONFIG, else of one that kind makes and that ends with the tests.

    The user's default cluster is never used: it may be the fab's.

    Args:
        folder: Where kind writes the kubeconfig of its cluster.

    Raises:
        NoClusterError: There is neither.
    """
    if given := os.environ.get("KUBECONFIG"):
        yield Path(given)
        return
    if not _kind_can_run():
        raise NoClusterError("needs a cluster: set KUBECONFIG, or install kind and start Docker")
    if missing := [image for image in images.ALL if not _succeeds("docker", "image", "inspect", image)]:
        raise NoClusterError(f"needs the images {', '.join(missing)}: k8s-tests/README.md says how to build them")
    file = folder / "kubeconfig"
    try:
        subprocess.run([*_KIND, "create", "cluster", "--name", _NAME, "--kubeconfig", file, "--wait", "3m"], check=True)
        subprocess.run([*_KIND, "load", "docker-image", *images.ALL, "--name", _NAME], check=True)
        yield file
    finally:
        subprocess.run([*_KIND, "delete", "cluster", "--name", _NAME, "--kubeconfig", file], check=False)


def _kind_can_run() -> bool:
    return shutil.which("kind") is not None and _succeeds("docker", "info")


def _succeeds(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
