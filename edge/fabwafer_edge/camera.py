"""A camera that publishes images over MQTT with QoS 1, and sends each again until its PUBACK is received."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import aiomqtt

from fabwafer.errors import CREDENTIALS_REFUSED, FabwaferError
from fabwafer.messages.bodies import Image
from fabwafer.service.backoff import Backoff
from fabwafer.service.listener import Listener, ListenerError

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
IN_FLIGHT: Final = 16
"""Images published at once without a PUBACK; the listener takes more, but a camera needs no more."""

_WRONG_CERTIFICATE: Final = "CERTIFICATE_VERIFY_FAILED"
# The reason codes that paho reports for the return codes 4 (bad user name or password) and 5 (not authorized) of a
# CONNACK of MQTT 3.1.1.
_REFUSED: Final = (134, 135)


class CameraRefusedError(FabwaferError):
    """The MQTT listener refuses this camera: its name or password is wrong."""

    exit_code: ClassVar[int] = CREDENTIALS_REFUSED


@dataclass(frozen=True, slots=True)
class Credentials:
    """A camera's fab and name, and its user and password for MQTT."""

    fab: str
    camera: str
    user: str
    password: str


@dataclass(slots=True)
class Camera:
    """A camera that publishes over MQTT.

    Args:
        listener: Where it connects.
        credentials: Its names, user and password.
        client_id: Its MQTT client id; without one the user with `_` for the dot. A listener has one connection for each
            client id.
    """

    listener: Listener
    credentials: Credentials
    client_id: str | None = None
    predictions: "asyncio.Queue[dict[str, Any]]" = field(default_factory=asyncio.Queue)
    """The cluster's predictions received on this camera's prediction topic."""

    async def publish(self, images: Sequence[Image], *, rate: float | None, wait: float) -> AsyncIterator[Image]:
        """Publish images, and yield each after its PUBACK.

        A lost connection is made again, and what had no PUBACK is sent again, for as long as it takes.

        Args:
            images: What to send.
            rate: Images a second; None sends as fast as PUBACKs are received.
            wait: Seconds to listen for predictions after the last PUBACK.

        Raises:
            CameraRefusedError: The credentials are wrong.
            ListenerError: The listener's certificate is not trusted.
        """
        unsent = list(images)
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while unsent or wait:
            try:
                async with self._client() as client:
                    client.pending_calls_threshold = 2 * IN_FLIGHT  # aiomqtt warns of more than 10
                    backoff.reset()
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
                if isinstance(error, aiomqtt.MqttCodeError) and error.rc in _REFUSED:
                    raise CameraRefusedError(
                        f"the MQTT listener at {self.listener} refuses the user {self.credentials.user!r}: "
                        "wrong password, or revoked (see `fabwafer device list`)"
                    ) from error
                if _WRONG_CERTIFICATE in str(error):  # all that aiomqtt leaves of the error
                    raise ListenerError(
                        f"{self.listener}: its certificate is not trusted ({error}): name the file with that of its "
                        "authority in FABWAFER_MQTT_CA_FILE"
                    ) from error
                await backoff.wait()

    def _client(self) -> aiomqtt.Client:
        return aiomqtt.Client(
            self.listener.host,
            self.listener.port,
            username=self.credentials.user,
            password=self.credentials.password,
            identifier=self.client_id or self.credentials.user.replace(".", "_"),
            timeout=10,
            keepalive=30,
            tls_context=self.listener.tls,
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
    """Return the imgid for a file's name: each character that is not allowed becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "image"
