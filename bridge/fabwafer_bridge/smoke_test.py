"""The smoke test: one wafer map through the running system, as a device would send it, and nothing left of it."""

import asyncio
import contextlib
import io
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import aiomqtt
from nats.aio.client import Client
from nats.errors import Error as NatsError
from PIL import Image as Picture

from fabwafer.errors import FabwaferError
from fabwafer.messages.bodies import Image, Prediction, read_stored_prediction
from fabwafer.messages.topics import (
    MQTT_PREFIX,
    SMOKE_TEST_FAB,
    Topic,
    subject_of_image,
    subject_of_prediction,
)
from fabwafer.records import Filter, Records
from fabwafer.service.listener import Listener
from fabwafer_bridge import streams
from fabwafer_bridge.devices import Credentials, Devices

IMGID: Final = "1"
AGAIN_AFTER: Final = 0.2
CLEAN_UP_SECONDS: Final = 15.0
SETTLED_AFTER: Final = 0.5
"""Seconds in which nothing was recorded any more: a consumer may be storing when the records are deleted."""
LONGEST: Final = 3600
"""Seconds that a test may be given."""
ABANDONED_AFTER: Final = 2 * LONGEST
"""Seconds after which a camera is of a test that was killed."""

_DIES: Final = 31
_SCALE: Final = 6
_OUTSIDE, _PASSED, _FAILED = 0, 127, 255

_DEVICE_AUTH: Final = "see the log of device-auth beside the NATS server"
_LISTENER: Final = "see the log of the NATS server, and fabwafer_mqtt_dropped_total of device-auth"


class SmokeTestError(FabwaferError):
    """A step of the smoke test failed. The text names it, and says what to look at."""


@dataclass(frozen=True, slots=True)
class System:
    """The system under test.

    Attributes:
        listener: The listener for devices.
        client: A connection to the bus.
        devices: The registry of devices.
        records: Where the wafer must appear.
    """

    listener: Listener
    client: Client
    devices: Devices
    records: Records


class SmokeTest:
    """One run, with a camera of its own.

    Args:
        system: The system under test.
        seconds: The time for all steps but the clean-up.
        say: Called with a sentence on each step that is done, with how long it took.
    """

    def __init__(self, system: System, seconds: float, say: Callable[[str], None]) -> None:
        self._system = system
        self._seconds = seconds
        self._deadline = 0.0
        self._say = say
        self.camera = f"camera-{secrets.token_hex(4)}"
        """The camera of this run."""

    async def run(self) -> None:
        """Pass all steps; whatever happens, revoke the camera and delete its records at the end.

        Raises:
            SmokeTestError: A step failed, or the clean-up.
        """
        self._deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            await self._steps()
        except BaseException:
            with contextlib.suppress(SmokeTestError):  # it was told already, and is not what matters here
                await self._clean_up()
            raise
        await self._clean_up()

    async def _steps(self) -> None:
        system, fab, camera = self._system, SMOKE_TEST_FAB, self.camera
        async with contextlib.AsyncExitStack() as connected:
            async with self._step(f"add the device {fab}/{camera}", _DEVICE_AUTH):
                credentials = await system.devices.add_for_smoke_test(camera)
                await system.devices.until_applied(self._seconds)
            async with self._step(f"connect to {system.listener} as the device", _LISTENER):
                device = await connected.enter_async_context(_connected(system.listener, credentials))
                topic = f"fabwafer/{fab}/{camera}/prediction/{IMGID}"
                granted = await device.subscribe(topic)
                if any(getattr(code, "value", code) > 2 for code in granted):
                    raise SmokeTestError(f"it may not subscribe to {topic}")
            async with self._step(
                "publish a wafer map, and receive its PUBACK",
                f"without one nothing is stored: $MQTT_msgs is full or has no leader; {_LISTENER}",
            ):
                image = Image.of_file(
                    drawn_wafer_map(), imgid=IMGID, timestamp=time.time_ns() // 1_000_000, fab=fab, camera=camera
                )
                await device.publish(Topic(fab, camera, "img", IMGID).topic, image.to_json(), 1, timeout=self._seconds)
            async with self._step(
                "receive its prediction by MQTT",
                "see /readyz and the log of the bridge, the model server, and `fabwafer dead-letters`",
            ):
                prediction = await _first_prediction(device)
            self._say(f"  {prediction.prediction} {prediction.probability:.1%} by model {prediction.model}")
            async with self._step("find its record", "see the log of the bridge, and the database"):
                await self._recorded()

    @contextlib.asynccontextmanager
    async def _step(self, name: str, look: str) -> AsyncIterator[None]:
        began = time.monotonic()
        try:
            async with asyncio.timeout_at(self._deadline) as limit:
                yield
        except (FabwaferError, NatsError, aiomqtt.MqttError, OSError) as error:  # a TimeoutError is an OSError
            reason = f"not done within the {self._seconds:g} s of --timeout" if limit.expired() else _said(error)
            raise SmokeTestError(f"step failed: {name}: {reason}; {look}") from None
        self._say(f"{name}: {time.monotonic() - began:.2f} s")

    async def _recorded(self) -> None:
        while True:
            found = await asyncio.to_thread(self._system.records.wafer, SMOKE_TEST_FAB, self.camera, IMGID)
            if found is not None and found.shots and found.current is not None:
                return
            await asyncio.sleep(AGAIN_AFTER)

    async def _clean_up(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                for camera in await self._ended():
                    await self._remove(camera)
        except (FabwaferError, NatsError, OSError) as error:
            sentence = (
                f"step failed: remove the device and its records: {_said(error)}; the next smoke test "
                f"removes them, or `fabwafer device revoke {SMOKE_TEST_FAB} {self.camera}` the device alone"
            )
            self._say(sentence)
            raise SmokeTestError(sentence) from None
        self._say(f"remove the device and its records: {time.monotonic() - began:.2f} s")

    async def _ended(self) -> set[str]:
        """Return the cameras to remove: this one, and what tests left that were killed."""
        now = time.time() * 1000
        # Before the registry: a test that begins in between is then in the second alone.
        recorded = await asyncio.to_thread(_cameras, self._system.records)
        registered = {
            device.camera: device.created for device in await self._system.devices.all() if device.fab == SMOKE_TEST_FAB
        }
        abandoned = {camera for camera, created in registered.items() if created < now - ABANDONED_AFTER * 1000}
        return {self.camera} | abandoned | (recorded - set(registered))

    async def _remove(self, camera: str) -> None:
        devices, js = self._system.devices, self._system.client.jetstream()
        if any((device.fab, device.camera) == (SMOKE_TEST_FAB, camera) for device in await devices.all()):
            await devices.revoke(SMOKE_TEST_FAB, camera)
        for stream, subjects in (
            (streams.MQTT, f"{MQTT_PREFIX}fabwafer.{SMOKE_TEST_FAB}.{camera}.>"),
            (streams.IMAGES, subject_of_image(SMOKE_TEST_FAB, camera, ">")),
            (streams.PREDICTIONS, subject_of_prediction("cluster", SMOKE_TEST_FAB, camera, ">")),
        ):
            await js.purge_stream(stream, subject=subjects)
        wanted = Filter(fab=SMOKE_TEST_FAB, camera=camera)
        await asyncio.to_thread(self._system.records.delete_wafers, wanted)
        await devices.until_applied(CLEAN_UP_SECONDS)
        while await asyncio.to_thread(self._system.records.delete_wafers, wanted):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(SETTLED_AFTER)


def drawn_wafer_map() -> bytes:
    """Draw a wafer map with failed dies along its edge, and return it as a PNG file."""
    middle = (_DIES - 1) / 2
    picture = Picture.new("L", (_DIES, _DIES), _OUTSIDE)
    for x in range(_DIES):
        for y in range(_DIES):
            distance = math.hypot(x - middle, y - middle) / (_DIES / 2)
            if distance <= 1:
                picture.putpixel((x, y), _FAILED if distance > 0.85 else _PASSED)
    file = io.BytesIO()
    picture.resize((_DIES * _SCALE, _DIES * _SCALE), Picture.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def _cameras(records: Records) -> set[str]:
    return {row.camera for row in records.rows(Filter(fab=SMOKE_TEST_FAB))}


@contextlib.asynccontextmanager
async def _connected(listener: Listener, credentials: Credentials) -> AsyncIterator[aiomqtt.Client]:
    """Connect as a device. A refusal is final: every server has its credentials by now."""
    async with aiomqtt.Client(
        listener.host,
        listener.port,
        username=credentials.user,
        password=credentials.password,
        identifier=credentials.user.replace(".", "_"),
        tls_context=listener.tls,
    ) as client:
        yield client


async def _first_prediction(device: aiomqtt.Client) -> Prediction:
    message = await anext(aiter(device.messages))
    assert isinstance(message.payload, bytes)  # noqa: S101 - as MQTT brings it
    return read_stored_prediction(message.payload)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
