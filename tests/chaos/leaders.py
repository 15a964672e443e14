"""Who leads a stream in a cluster, and who is to lead it."""

import asyncio
import json

from nats.aio.client import Client
from nats.errors import Error as NatsError

from fabwafer_bridge import streams
from fabwafer_bridge.connection import connect
from tests.chaos.system import System
from tests.support.nats_servers import NatsCluster, NatsServer


async def leader(client: Client, stream: str) -> str | None:
    """The server that leads a stream; None while its servers have not agreed on one."""
    try:
        info = await client.jetstream(timeout=5).stream_info(stream)
    except (NatsError, TimeoutError):
        return None
    return info.cluster.leader if info.cluster else None


async def leads_without_mqtt(cluster: NatsCluster, stream: str) -> NatsServer:
    """Moves the lead of a stream until it is with another server than that of `$MQTT_msgs`; returns who has it."""
    client = await connect(",".join(server.url for server in cluster.servers if server.running), name="test")
    try:
        for _ in range(200):
            own, mqtt = await leader(client, stream), await leader(client, streams.MQTT)
            if own and mqtt and own != mqtt:
                return cluster.server_named(own)
            if own and mqtt:
                answer = await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", b"", timeout=5)
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
