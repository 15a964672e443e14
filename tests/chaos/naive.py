"""The way that loses messages, to see the checker find it: an intake behind a stream that captures the MQTT subject.

All the rest is the real bridge, run without its own intake.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig

from fabwafer_bridge.connection import connect
from fabwafer_bridge.intake import Intake
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.puller import Puller

STREAM = "NAIVE"
DURABLE = "naive"
ONLY = "classify,record,alert"
"""What the bridge does besides."""


async def ensure_streams(url: str, *, max_bytes: int = -1, replicas: int = 1) -> None:
    """Makes the stream and its durable consumer, otherwise like the bridge makes its own."""
    client = await connect(url, name="naive")
    js = client.jetstream()
    await js.add_stream(
        StreamConfig(
            name=STREAM,
            subjects=["fabwafer.*.*.img.*"],
            retention=RetentionPolicy.INTEREST,
            discard=DiscardPolicy.NEW,
            max_bytes=max_bytes,
            num_replicas=replicas,
        )
    )
    config = ConsumerConfig(durable_name=DURABLE, ack_policy=AckPolicy.EXPLICIT, ack_wait=30, max_ack_pending=4096)
    await js.add_consumer(STREAM, config)
    await client.close()


@asynccontextmanager
async def intake(url: str) -> AsyncIterator[None]:
    """Passes on what the stream captured, for the body of the `async with`."""
    pullers: list[Puller] = []

    async def renew() -> None:
        for puller in pullers:
            await puller.renew()

    async def behind() -> int:
        return 0

    client = await connect(url, name="naive", reconnected=renew)
    puller = Puller(client, STREAM, DURABLE)
    pullers.append(puller)
    await puller.start()
    running = asyncio.create_task(Intake(client, puller, Publisher(client), behind).run())
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await client.close()
