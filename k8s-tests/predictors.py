"""A namespace with a predictor, the Services in front of it, and the reconciler that names its version."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import images
import yaml
from kr8s.asyncio.objects import APIObject, Deployment, Pod, new_class
from namespaces import Namespace, restricted_pod

_MANIFESTS = Path(__file__).parent
_STORE = "/store"
SMALL: dict[str, Any] = {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}}

_SET_UP = f"""
import dataclasses, shutil
from pathlib import Path
from fabwafer.models.card import describe_file, read_card, write_card
from fabwafer.models.shipped import default_model
for version in ("v1", "v2", "broken"):
    folder = Path("{_STORE}/versions") / version
    shutil.copytree(default_model(), folder)
    card = read_card(folder).model_copy(update={{"version": version}})
    if version == "broken":  # just as its card describes it, and no network
        for file in card.files.values():
            (folder / file.name).write_bytes(b"no network")
        card = card.model_copy(update={{"files": {{v: describe_file(folder / f.name) for v, f in card.files.items()}}}})
    write_card(folder, card)
"""


class System:
    """A namespace where the reconciler runs.

    Args:
        namespace: The namespace.
        kserve: Whether the predictor is an InferenceService.
    """

    def __init__(self, namespace: Namespace, *, kserve: bool) -> None:
        self.namespace = namespace
        self.kind = new_class("InferenceService", "serving.kserve.io/v1beta1") if kserve else Deployment
        self.kserve = kserve

    async def start(self, ready_seconds: int) -> None:
        """Fill the store, make the predictor and start the reconciler; the first champion is v1.

        Args:
            ready_seconds: Seconds within which a pod of a version must be ready.
        """
        container = {"name": "fill", "image": images.HANDLERS, "command": ["python", "-c", _SET_UP], "resources": SMALL}
        await self.namespace.run_to_end(restricted_pod(container, _STORE))
        files = ["rollout.yaml", "predictor_kserve.yaml" if self.kserve else "predictor_deployment.yaml"]
        values = {"BRIDGE": images.BRIDGE, "HANDLERS": images.HANDLERS, "KSERVE": str(self.kserve).lower()}
        values |= {"NAMESPACE": self.namespace.name, "READY_SECONDS": str(ready_seconds)}
        for file in files:
            text = (_MANIFESTS / file).read_text()
            for name, value in values.items():
                text = text.replace(f"${name}", value)
            for manifest in yaml.safe_load_all(text):
                await self.namespace.create(new_class(manifest["kind"], version=manifest["apiVersion"]), manifest)

    async def run(self, *command: str) -> str:
        """Run a command in the reconciler's pod as a person does, once it is ready; return what it printed."""
        [pod] = await self.pods("app=fabwafer-rollout")
        done = await pod.exec(["fabwafer", *command])
        return str(done.stdout.decode())

    async def predictor(self, name: str) -> APIObject:
        """Return a predictor."""
        made = self.kind({"metadata": {"name": name}}, namespace=self.namespace.name, api=self.namespace.api)
        await made.refresh()
        return made

    async def named(self, predictor: str) -> str | None:
        """Return the version that a predictor names."""
        spec = (await self.predictor(predictor)).raw["spec"]
        pods = spec["predictor"] if self.kserve else spec["template"]["metadata"]
        version: str | None = pods.get("annotations", {}).get("fabwafer/model-version")
        return version

    async def pods(self, selector: str) -> list[Pod]:
        """Return the pods that a label selector finds and that were not asked to end."""
        found = await self.namespace.pods(selector)
        return [pod for pod in found if "deletionTimestamp" not in pod.metadata]

    async def serving(self, role: str) -> list[tuple[str, bool]]:
        """Return the version of each pod of a role, and whether it is ready."""
        return [
            (str(dict(pod.annotations).get("fabwafer/model-version", "")), bool(await pod.ready()))
            for pod in await self.pods(f"fabwafer/serves={role}")
        ]

    async def answering(self, role: str, image: str) -> str:
        """Ask a pod of a role about an image (base64); return the version that answered."""
        [pod] = await self.pods(f"fabwafer/serves={role}")
        body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}]}
        async with (
            pod.portforward(8080, local_port="auto") as port,
            aiohttp.ClientSession() as client,
            client.post(f"http://127.0.0.1:{port}/v2/models/wafer/infer", json=body) as response,
        ):
            answer = await response.json(content_type=None)
            assert response.status == 200, json.dumps(answer)
            return str(answer["model_version"])
