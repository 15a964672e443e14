"""A camera's way to the bus: images go over MQTT with QoS 1, and each is kept until its PUBACK is there."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiomqtt

from fabwafer.errors import FabwaferError
from fabwafer.messages.bodies import Image

LONGEST_PAUSE: Final = 5.0
IN_FLIGHT: Final = 16
"""Messages on their way at once; the listener takes more, but a camera needs no more."""


class CameraRefusedError(FabwaferError):
    """The listener refuses this camera: its name or password is wrong."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a camera is: its fab and name, and what it signs in with."""

    fab: str
    camera: str
    user: str
    password: str


@dataclass(slots=True)
class Camera:
    """A camera that publishes over MQTT.

    Args:
        url: `mqtt://HOST:PORT`.
        credentials: Who it is.
    """

    url: str
    credentials: Credentials
    predictions: "asyncio.Queue[dict[str, Any]]" = field(default_factory=asyncio.Queue)
    """What came back on this camera's prediction topic."""

    async def publish(self, images: Sequence[Image], *, rate: float | None, wait: float) -> AsyncIterator[Image]:
        """Publishes images, and yields each when the listener has stored it.

        A connection that breaks is made again, and what had no PUBACK is sent again, for as long as it takes.

        Args:
            images: What to send.
            rate: Images a second; as fast as PUBACKs come when None.
            wait: Seconds to listen on for predictions after the last PUBACK.

        Raises:
            CameraRefusedError: The credentials are wrong.
        """
        unsent = list(images)
        pause = 0.2
        while unsent or wait:
            try:
                async with self._client() as client:
                    client.pending_calls_threshold = 2 * IN_FLIGHT  # it warns of more, and these are meant
                    pause = 0.2
                    prefix = f"fabwafer/{self.credentials.fab}/{self.credentials.camera}"
                    await client.subscribe(f"{prefix}/prediction/+")
                    listener = asyncio.create_task(self._listen(client))
                    try:
                        while unsent:
                            several = 1 if rate else IN_FLIGHT
                            for image in await self._sent(client, unsent[:several]):
                                unsent.remove(image)
                                yield image
                            if rate:
                                await asyncio.sleep(1 / rate)
                        await asyncio.sleep(wait)
                        return
                    finally:
                        listener.cancel()
            except aiomqtt.MqttError as error:
                if "not authorised" in str(error).lower() or "not authorized" in str(error).lower():
                    raise CameraRefusedError(
                        f"the MQTT listener at {self.url} refuses the user {self.credentials.user!r}: "
                        "wrong password, or revoked (see `fabwafer device list`)"
                    ) from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _client(self) -> aiomqtt.Client:
        address = urlsplit(self.url)
        return aiomqtt.Client(
            address.hostname or "127.0.0.1",
            address.port or 1883,
            username=self.credentials.user,
            password=self.credentials.password,
            timeout=10,
            keepalive=30,
        )

    async def _sent(self, client: aiomqtt.Client, images: Sequence[Image]) -> list[Image]:
        await asyncio.gather(*(client.publish(image.topic("img").topic, image.to_json(), qos=1) for image in images))
        return list(images)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            try:
                body = json.loads(message.payload if isinstance(message.payload, bytes) else b"")
            except ValueError:
                continue
            if isinstance(body, dict) and body.get("source") == "cluster":
                self.predictions.put_nowait(body)


def imgid_of(name: str) -> str:
    """Makes an imgid of a file's name: what a name must not hold becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "image"
