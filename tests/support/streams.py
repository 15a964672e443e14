"""The streams on the bus for tests, made as `fabwafer streams` does."""

import asyncio
from typing import Final

import nats

from fabwafer_bridge import streams

PATIENCE: Final = 60.0


async def make_streams(
    url: str, *, replicas: int = 1, mqtt_max_bytes: int = 64 << 20, max_bytes: int = 64 << 20
) -> None:
    """Make the streams; wait for a cluster that elects its leaders."""
    client = await nats.connect(url.split(","))
    try:
        async with asyncio.timeout(PATIENCE):
            await streams.make_streams(
                client.jetstream(), replicas=replicas, mqtt_max_bytes=mqtt_max_bytes, max_bytes=max_bytes
            )
    finally:
        await client.close()
