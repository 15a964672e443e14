"""Three servers of the bus: streams with three copies, and a server that dies under load."""

import json

import pytest
from load import camera
from namespaces import Namespace
from release import Release

pytestmark = pytest.mark.timeout(1800)

_COPIES = """
import asyncio, json
from fabwafer.commands.connections import open_bus
async def main():
    async with open_bus(None) as bus:
        found = await bus.jetstream().streams_info()
        print(json.dumps(sorted({(info.config.name, info.config.num_replicas) for info in found})))
asyncio.run(main())
"""


async def test_a_server_that_dies_under_load_loses_nothing(namespace: Namespace) -> None:
    release = Release(namespace)
    await release.install("--set", "nats.replicas=3")
    streams = json.loads(await release.bridge("python", "-c", _COPIES))
    assert {copies for _, copies in streams} == {3}
    async with camera(release, "fab1", rate=20) as ledger:
        for pod in await release.pods("nats"):
            await pod.delete(force=True)
            await release.until_replaced("nats", pod, of=3)
    await ledger.check(release)
