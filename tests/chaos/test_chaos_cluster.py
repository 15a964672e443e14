"""Three servers hold each stream three times: losing a leader loses nothing."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from fabwafer_bridge import streams
from fabwafer_bridge.connection import connect
from tests.chaos.system import ROUNDS, System, chance, running
from tests.nats_servers import NatsCluster, NatsServer, nats_cluster
from tests.running import ModelServer, model_server

__all__ = ["chance", "model_server", "nats_cluster"]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(60 + 180 * ROUNDS)]

STEADY = 100.0
IMAGES = 300


async def leader(client: Client, stream: str) -> str | None:
    """The server that leads a stream; None while its servers have not agreed on one."""
    try:
        info = await client.jetstream(timeout=5).stream_info(stream)
    except (NatsError, TimeoutError):
        return None
    return info.cluster.leader if info.cluster else None


async def leads_images_alone(cluster: NatsCluster) -> NatsServer:
    """Moves the lead of IMAGES until it is with another server than that of `$MQTT_msgs`; returns who has it."""
    client = await connect(",".join(server.url for server in cluster.servers if server.running), name="test")
    try:
        for _ in range(200):
            images, mqtt = await leader(client, streams.IMAGES), await leader(client, streams.MQTT)
            if images and mqtt and images != mqtt:
                return cluster.server_named(images)
            if images and mqtt:
                answer = await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{streams.IMAGES}", b"", timeout=5)
                assert "error" not in json.loads(answer.data), answer.data
            await asyncio.sleep(0.1)
    finally:
        await client.close()
    raise AssertionError("the two streams stayed with one leader")


async def in_step(system: System) -> None:
    """Waits until each server has all that the leaders have: before that, losing another one may lose the majority."""
    async with system.jetstream() as js:
        for _ in range(600):
            try:
                infos = [await js.stream_info(name) for name in (streams.MQTT, streams.IMAGES, streams.PREDICTIONS)]
            except (NatsError, TimeoutError):
                infos = []
            clusters = [info.cluster for info in infos if info.cluster and info.cluster.leader]
            if len(clusters) == 3 and all(
                len(one.replicas or []) == 2 and all(peer.current for peer in one.replicas or []) for one in clusters
            ):
                return
            await asyncio.sleep(0.1)
    raise AssertionError("the servers did not come into step")


async def test_killing_the_leader_of_the_images_under_load_loses_nothing(
    tmp_path: Path, nats_cluster: NatsCluster, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_cluster, model_server, chance, replicas=3) as system:
        for number in range(ROUNDS):
            await in_step(system)
            victim = await leads_images_alone(nats_cluster)
            async with system.under_load(system.fleet.images(IMAGES), rate=STEADY):
                await system.fleet.until(number * IMAGES + chance.randint(IMAGES // 10, IMAGES * 8 // 10))
                victim.kill()
                # The others carry on alone: it comes back only after they have taken more.
                await system.fleet.until(len(system.fleet.acknowledged) + IMAGES // 10)
                await asyncio.to_thread(victim.start)
        await system.check()
        # Servers that the bus names itself are signed in at like those of the setting.
        assert "Authorization Violation" not in system.bridge.log.read_text()
