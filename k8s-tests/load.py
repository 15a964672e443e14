"""A camera in the cluster that publishes while a test does something to the system, and what became of its images."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import images
from kr8s.asyncio.objects import Pod
from namespaces import PATIENCE, log, phase, restricted_pod, until_logged
from release import Release

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode

_PUBLISHER = (Path(__file__).parent / "publisher.py").read_text()


@dataclass
class Ledger:
    """The imgids of one camera that the listener acknowledged; filled in when the camera has stopped."""

    fab: str
    acknowledged: list[str] = field(default_factory=list)

    async def check(self, release: Release) -> None:
        """Wait until all that was acknowledged has a prediction in the records, and check that none has two."""
        found = await release.until_recorded(self.fab, self.acknowledged)
        doubled = {imgid: models for imgid, models in found.items() if len(models) > len(set(models))}
        assert not doubled, doubled
        letters = await release.fabwafer("dead-letters", "--json")
        assert not letters.strip(), letters


@asynccontextmanager
async def camera(release: Release, fab: str, *, rate: float, most: int = 100_000) -> AsyncIterator[Ledger]:
    """Publish images while the body runs; after it, the ledger says which were acknowledged.

    Args:
        release: Where.
        fab: The camera's fab; new for each ledger.
        rate: Images a second.
        most: Images at most; the body may end earlier.
    """
    password = await release.add_device(fab, "camera")
    drawn = [base64.b64encode(encode(grid, scale=4)).decode() for _, grid in sample(seed=1, n=9)]
    env = {
        "FAB": fab,
        "CAMERA": "camera",
        "PASSWORD": password,
        "HOST": "fabwafer-mqtt",
        "IMAGES": json.dumps(drawn),
        "RATE": str(rate),
        "COUNT": str(most),
        "PATIENCE": str(PATIENCE),
    }
    container = {
        "name": "camera",
        "image": images.BRIDGE,
        "command": ["python", "-c", _PUBLISHER],
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
    pod = await release.namespace.run(restricted_pod(container))
    await until_logged(pod, "publishing")
    ledger = Ledger(fab)
    yield ledger
    ledger.acknowledged = await _stop(pod)
    assert ledger.acknowledged, "nothing was acknowledged"


async def _stop(pod: Pod) -> list[str]:
    await pod.refresh()
    if pod.status.phase == "Running":
        # It may end by itself at this moment, which kr8s shows by errors of several kinds; that it has ended counts.
        with contextlib.suppress(Exception):
            await pod.exec(["touch", "/tmp/stop"], container="camera", check=False)
    await phase(pod, "Succeeded", "Failed")
    summary = json.loads((await log(pod)).splitlines()[-1])
    assert len(summary["acknowledged"]) == summary["sent"], "images that never got a PUBACK"
    return list(summary["acknowledged"])
