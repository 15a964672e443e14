"""Cameras that publish over MQTT with QoS 1 and keep each image until its PUBACK is there, as devices in the field do.

A small client of its own on asyncio: what counts here is which images exactly had a PUBACK when a connection broke, and
libraries keep that to themselves or send again by themselves.
"""

import asyncio
import itertools
import random
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fabwafer.defects import SHIPPED_CLASSES
from fabwafer.maps.synthetic import make
from fabwafer.maps.wafermap import encode
from fabwafer.messages.bodies import Image
from tests.support.raw_mqtt import packet, text
from tests.support.running import PATIENCE

_CONNECT, _CONNACK, _PUBLISH_QOS1, _PUBACK = 0x10, 2, 0x32, 4
SILENCE: Final = 20.0
"""Seconds without any answer after which a device takes its connection for dead, as MQTT libraries do."""

Shot = tuple[str, str, str, int]
"""What an image is known by: fab, camera, imgid, timestamp."""


@dataclass(frozen=True, slots=True)
class Device:
    """Who publishes: a camera and its credentials."""

    fab: str
    camera: str
    user: str
    password: str


def key(image: Image) -> Shot:
    return image.fab, image.camera, image.imgid, image.timestamp


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next packet: its kind and its body. All that a publisher is ever sent is shorter than 128 bytes."""
    async with asyncio.timeout(SILENCE):
        first, length = await reader.readexactly(2)
        return first >> 4, await reader.readexactly(length)


class Fleet:
    """Devices that publish, each on several connections.

    Args:
        devices: Who publishes.
        ports: The MQTT listeners; a connection that broke is made again to any of them.
        chance: Decides what is left to chance.
        connections: How many each device has.
        in_flight: How many images each connection sends ahead of their PUBACKs.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        ports: Callable[[], Sequence[int]],
        chance: random.Random,
        *,
        connections: int = 4,
        in_flight: int = 4,
    ) -> None:
        self._devices, self._ports, self._chance = devices, ports, chance
        self._connections, self._in_flight = connections, in_flight
        self._numbers = itertools.count()
        self._run = f"{chance.getrandbits(32):08x}"
        self._clock = time.time_ns() // 1_000_000
        grids = np.random.default_rng(chance.getrandbits(32))
        self._files = [encode(make(grids, label, 26, 26)) for label in SHIPPED_CLASSES]
        self.published: set[Shot] = set()
        self.acknowledged: set[Shot] = set()
        self.resent = 0
        """How often an image was sent that had been sent before."""

    def images(self, count: int) -> list[Image]:
        """Makes images that nobody published yet; the devices take turns."""
        made = []
        for number in itertools.islice(self._numbers, count):
            device = self._devices[number % len(self._devices)]
            made.append(
                Image.of_file(
                    self._files[number % len(self._files)],
                    imgid=f"{self._run}-{number}",
                    timestamp=self._clock + number,
                    fab=device.fab,
                    camera=device.camera,
                )
            )
        return made

    async def publish(self, images: Sequence[Image], *, rate: float | None = None, once: bool = False) -> list[Image]:
        """Publishes images, each again until it has its PUBACK.

        Args:
            images: What to publish.
            rate: Images a second of all devices together; as fast as PUBACKs come when None.
            once: Whether an image whose connection broke is given up instead.

        Returns:
            Those that were given up.
        """
        self.published |= {key(image) for image in images}
        given_up: list[Image] = []
        share = rate / (len(self._devices) * self._connections) if rate else None
        async with asyncio.TaskGroup() as group:
            for device in self._devices:
                own = deque(image for image in images if (image.fab, image.camera) == (device.fab, device.camera))
                for number in range(self._connections):
                    name = f"{device.fab}-{device.camera}-{number}"
                    group.create_task(self._carry(device, name, own, share, given_up if once else None))
        return given_up

    async def until(self, acknowledged: int) -> None:
        """Waits until so many images have had their PUBACK."""
        deadline = time.monotonic() + PATIENCE
        seen = -1
        while (now := len(self.acknowledged)) < acknowledged:
            if now > seen:
                seen, deadline = now, time.monotonic() + PATIENCE
            assert time.monotonic() < deadline, f"{seen} PUBACKs, waited {PATIENCE:g} s in vain for more"
            await asyncio.sleep(0.002)

    async def _carry(
        self, device: Device, name: str, waiting: deque[Image], rate: float | None, given_up: list[Image] | None
    ) -> None:
        """Sends what waits on one connection after the other, until nothing waits."""
        deadline = time.monotonic() + PATIENCE
        while waiting:
            in_flight: dict[int, Image] = {}
            before = len(self.acknowledged)
            writer = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._chance.choice(self._ports()))
                await _sign_in(reader, writer, device, name)
                await self._send(reader, writer, waiting, in_flight, rate)
            except (OSError, EOFError, TimeoutError):
                if given_up is None:
                    self.resent += len(in_flight)
                    waiting.extendleft(in_flight.values())
                else:
                    given_up.extend(in_flight.values())
                if len(self.acknowledged) > before or (in_flight and given_up is not None):
                    deadline = time.monotonic() + PATIENCE
                assert time.monotonic() < deadline, f"no PUBACK for {PATIENCE:g} s, {len(waiting)} images wait"
                await asyncio.sleep(self._chance.uniform(0.02, 0.2))
            finally:
                if writer is not None:
                    writer.close()

    async def _send(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        waiting: deque[Image],
        in_flight: dict[int, Image],
        rate: float | None,
    ) -> None:
        numbers = itertools.cycle(range(1, 65536))
        while waiting or in_flight:
            while waiting and len(in_flight) < self._in_flight:
                number = next(numbers)
                image = waiting.popleft()
                in_flight[number] = image
                body = text(image.topic("img").topic) + struct.pack("!H", number) + image.to_json()
                writer.write(packet(_PUBLISH_QOS1, body))
                if rate:
                    await asyncio.sleep(self._chance.expovariate(rate))
            await writer.drain()
            kind, answer = await _answer(reader)
            if kind == _PUBACK:
                image = in_flight.pop(struct.unpack("!H", answer)[0])
                self.acknowledged.add(key(image))


async def _sign_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, device: Device, name: str) -> None:
    """Raises ConnectionError when the listener refuses, as one that is still starting does."""
    flags = 0x02 | 0x80 | 0x40  # clean session, user, password
    head = text("MQTT") + bytes([4, flags]) + struct.pack("!H", 60)
    writer.write(packet(_CONNECT, head + text(name) + text(device.user) + text(device.password)))
    kind, body = await _answer(reader)
    if kind != _CONNACK or body[1] != 0:
        raise ConnectionError(f"refused: {kind} {body!r}")
