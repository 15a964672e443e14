"""A release of the chart in a namespace, and what a person does with it."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import images
from helm import CHART, VALUES, helm
from kr8s.asyncio.objects import Deployment, Pod
from namespaces import PATIENCE, FailedError, Namespace, ready

NAME = "fabwafer"

_PREDICTIONS = """
import json, sys
from sqlalchemy import select
from fabwafer.commands.system import address
from fabwafer.records.engine import connect, reading
from fabwafer.records.tables import predictions, wafers
found = {}
with reading(connect(address("database_url", None))) as connection:
    rows = connection.execute(
        select(wafers.c.imgid, predictions.c.model, predictions.c.shadow)
        .join(predictions, predictions.c.wafer_id == wafers.c.id)
        .where(wafers.c.fab == sys.argv[1], predictions.c.source == "cluster")
    )
    for imgid, model, shadow in rows:
        found.setdefault(imgid, []).append([model, shadow])
print(json.dumps(found))
"""


class Release:
    """A release of the chart.

    Args:
        namespace: Where it is, or is to be.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    async def install(self, *arguments: str) -> None:
        """Install the chart with the tests' values and wait until all of it is ready."""
        await self._change("install", *arguments)

    async def upgrade(self, *arguments: str) -> None:
        """Install the chart over the release, and wait until all of it is ready."""
        await self._change("upgrade", *arguments)

    async def _change(self, how: str, *arguments: str) -> None:
        patience = ("--wait", "--timeout", f"{PATIENCE}s")
        await self.helm(how, NAME, str(CHART), "-f", str(VALUES), *images.chart_values(), *patience, *arguments)
        await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until messages are classified: the bridge is ready only when the champion answers."""
        await ready(await Deployment.get("fabwafer-bridge", namespace=self.namespace.name, api=self.namespace.api))

    async def helm(self, *arguments: str) -> str:
        """Run helm in the release's namespace; return what it printed."""
        return await helm(*arguments, "--namespace", self.namespace.name)

    async def pods(self, component: str) -> list[Pod]:
        """Return a part's pods, the oldest first, but for those that are ending."""
        found = await self.namespace.pods(f"app.kubernetes.io/component={component}")
        return [pod for pod in found if "deletionTimestamp" not in pod.metadata]

    async def until_replaced(self, component: str, gone: Pod, of: int = 1) -> None:
        """Wait until another pod of a part is ready in place of one `of` several, and messages are classified."""
        deadline = time.monotonic() + PATIENCE
        while True:
            others = [pod for pod in await self.pods(component) if pod.metadata.uid != gone.metadata.uid]
            if len(others) == of and all([await pod.ready() for pod in others]):
                break
            if time.monotonic() > deadline:
                raise FailedError(f"no pod took the place of {gone.name}")
            await asyncio.sleep(1)
        await self.until_ready()

    async def bridge(self, *command: str) -> str:
        """Run a command in a pod of the bridge, as `kubectl exec deploy/fabwafer-bridge --`; return its output.

        Raises:
            FailedError: It failed.
        """
        [*_, pod] = await self.pods("bridge")
        done = await pod.exec(list(command), container="bridge", check=False)
        if done.returncode:
            raise FailedError(f"{command}: {done.stdout.decode()} {done.stderr.decode()}")
        return str(done.stdout.decode())

    async def fabwafer(self, *arguments: str) -> str:
        """Run the command `fabwafer` in a pod of the bridge; return its output."""
        return await self.bridge("fabwafer", *arguments)

    async def add_device(self, fab: str, camera: str) -> str:
        """Add a device; return its password."""
        added = await self.fabwafer("device", "add", fab, camera, "--json")
        return str(json.loads(added)["password"])

    async def predictions(self, fab: str) -> dict[str, list[str]]:
        """Return the models whose predictions are recorded for each wafer of a fab, those of trials left out."""
        found = json.loads(await self.bridge("python", "-c", _PREDICTIONS, fab))
        return {imgid: [model for model, shadow in rows if not shadow] for imgid, rows in found.items()}

    async def until_recorded(self, fab: str, imgids: Sequence[str]) -> dict[str, list[str]]:
        """Wait until each of some wafers has a prediction in the records; return what `predictions` does.

        Raises:
            FailedError: They have not all one in time.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            found = await self.predictions(fab)
            missing = sorted(set(imgids) - set(found))
            if not missing:
                return found
            if time.monotonic() > deadline:
                raise FailedError(f"{len(missing)} of {len(imgids)} have no prediction: {missing[:5]}")
            await asyncio.sleep(2)

    async def objects(self, *kinds: str) -> list[Any]:
        """Return all objects of some kinds in the namespace."""
        return [one for kind in kinds async for one in self.namespace.api.get(kind, namespace=self.namespace.name)]
