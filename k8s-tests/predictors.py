"""The model servers of a release: what serves, what is asked of them, and versions to choose from."""

import json
from collections.abc import Sequence

import aiohttp
from kr8s.asyncio.objects import APIObject, Deployment, Pod, new_class
from release import Release

_ADD = """
import shutil, sys
from fabwafer.commands.system import store_address
from fabwafer.models.card import describe_file, read_card, write_card
from fabwafer.models.shipped import default_model
from fabwafer.models.store import open_store
store = open_store(store_address(None, None))
for version in sys.argv[1:]:
    work = store.new_work_folder(version)
    shutil.copytree(default_model(), work, dirs_exist_ok=True)
    card = read_card(work).model_copy(update={"version": version})
    if version == "broken":  # just as its card describes it, and no network
        for file in card.files.values():
            (work / file.name).write_bytes(b"no network")
        card = card.model_copy(update={"files": {v: describe_file(work / f.name) for v, f in card.files.items()}})
    write_card(work, card)
    store.publish(version, work)
"""


async def add_versions(release: Release, versions: Sequence[str]) -> None:
    """Publish copies of the shipped model into the store; one named `broken` has no network in it."""
    await release.bridge("python", "-c", _ADD, *versions)


class Predictors:
    """The model servers of a release.

    Args:
        release: The release.
        kserve: Whether they are InferenceServices.
    """

    def __init__(self, release: Release, *, kserve: bool) -> None:
        self._release = release
        self._namespace = release.namespace
        self._kind = new_class("InferenceService", "serving.kserve.io/v1beta1") if kserve else Deployment
        self.kserve = kserve

    async def predictor(self, name: str) -> APIObject:
        """Return a predictor."""
        made = self._kind({"metadata": {"name": name}}, namespace=self._namespace.name, api=self._namespace.api)
        await made.refresh()
        return made

    async def named(self, predictor: str) -> str | None:
        """Return the version that a predictor names."""
        spec = (await self.predictor(predictor)).raw["spec"]
        pods = spec["predictor"] if self.kserve else spec["template"]["metadata"]
        version: str | None = pods.get("annotations", {}).get("fabwafer/model-version")
        return version

    async def pods(self, role: str) -> list[Pod]:
        """Return the pods of a role that were not asked to end."""
        found = await self._namespace.pods(f"fabwafer/serves={role}")
        return [pod for pod in found if "deletionTimestamp" not in pod.metadata]

    async def serving(self, role: str) -> list[tuple[str, bool]]:
        """Return the version of each pod of a role, and whether it is ready."""
        return [
            (str(dict(pod.annotations).get("fabwafer/model-version", "")), bool(await pod.ready()))
            for pod in await self.pods(role)
        ]

    async def answering(self, role: str, image: str) -> str:
        """Ask a pod of a role about an image (base64); return the version that answered."""
        [pod] = await self.pods(role)
        body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}]}
        async with (
            pod.portforward(8080, local_port="auto") as port,
            aiohttp.ClientSession() as client,
            client.post(f"http://127.0.0.1:{port}/v2/models/wafer/infer", json=body) as response,
        ):
            answer = await response.json(content_type=None)
            assert response.status == 200, json.dumps(answer)
            return str(answer["model_version"])
