"""A full disk stops the intake and nothing else: `fabwafer up` lives, nothing is lost, and all goes on with room."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nats
import pytest
from nats.js import JetStreamContext

from fabwafer.commands.system import sqlite_url
from fabwafer.records import Records
from fabwafer_bridge import streams
from tests.chaos import ledger
from tests.chaos.fleet import Device, Fleet
from tests.chaos.system import DURABLES, waiting_messages
from tests.support.running import PATIENCE, samples, wait_until
from tests.support.small_disks import SmallDisk
from tests.support.up import Up, fabwafer, left

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

STOPPED = "fabwafer_intake_stopped"


def fleet_of(up: Up, cwd: Path, chance: random.Random) -> Fleet:
    """Three cameras that publish to a system."""
    devices = []
    for camera in ("cam1", "cam2", "cam3"):
        added = fabwafer("device", "add", "fab1", camera, "--data", str(up.data), "--json", cwd=cwd)
        assert added.returncode == 0, added.stderr
        credentials = json.loads(added.stdout)
        devices.append(Device("fab1", camera, credentials["user"], credentials["password"]))
    port = urlsplit(up.system.mqtt_url).port
    assert port is not None
    return Fleet(devices, lambda: [port], chance)


@asynccontextmanager
async def jetstream(up: Up) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(up.system.nats_url)
    try:
        yield client.jetstream(timeout=5)
    finally:
        await client.close()


async def settled(up: Up) -> None:
    """Waits until no message waits for anything."""
    async with asyncio.timeout(PATIENCE), jetstream(up) as js:
        while (waiting := await waiting_messages(js, DURABLES)) is None or any(waiting.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def nothing_lost(up: Up, fleet: Fleet) -> None:
    await settled(up)
    with Records(sqlite_url(up.data)) as records:
        ledger.check(fleet.published, records.wafers())
    async with jetstream(up) as js:
        assert (await js.stream_info(streams.DEAD)).state.messages == 0, "dead letters"


def metric(up: Up, name: str) -> float:
    return next(sample.value for sample in samples(up.system.metrics_url) if sample.name == name)


def ends_in_order(up: Up) -> None:
    sessions = up.sessions()
    assert up.process.poll() is None, up.output
    assert up.stop() == 0, up.output
    assert left(up, sessions) == []
    assert "Traceback" not in up.output


async def test_a_disk_that_others_fill_to_the_last_byte_loses_nothing(
    tmp_path: Path, small_disk: SmallDisk, chance: random.Random
) -> None:
    with Up(small_disk.path / "data", "--samples", "0", output=tmp_path / "up.txt") as up:
        up.running()
        fleet = await asyncio.to_thread(fleet_of, up, tmp_path, chance)
        for number in (1, 2):
            publishing = asyncio.create_task(fleet.publish(fleet.images(600), rate=100))
            await fleet.until(600 * number - chance.randint(300, 550))
            await asyncio.to_thread(small_disk.fill)
            await asyncio.to_thread(up.wait_for, "is full", number)
            for _ in range(5):  # whatever is still written meets no room
                await asyncio.sleep(0.5)
                await asyncio.to_thread(small_disk.fill)
            assert not publishing.done(), "images were taken although nothing could be stored"
            small_disk.empty()
            await publishing
        assert fleet.acknowledged == fleet.published
        await nothing_lost(up, fleet)
        await asyncio.to_thread(ends_in_order, up)


async def test_little_room_stops_the_intake_before_the_disk_is_full(
    tmp_path: Path, small_disk: SmallDisk, chance: random.Random
) -> None:
    with Up(small_disk.path / "data", "--samples", "0", output=tmp_path / "up.txt") as up:
        up.running()
        assert "the streams may hold" in up.output
        fleet = await asyncio.to_thread(fleet_of, up, tmp_path, chance)
        await fleet.publish(fleet.images(30))
        assert metric(up, STOPPED) == 0
        await asyncio.to_thread(small_disk.fill, 4 << 20)
        await asyncio.to_thread(wait_until, lambda: metric(up, STOPPED) == 1, "the intake to stop")
        await asyncio.to_thread(up.wait_for, "is full")
        await settled(up)  # what was taken before is finished
        refused = fleet.images(3)
        given_up = await fleet.publish(refused, once=True)
        assert len(given_up) == len(refused)
        small_disk.empty()
        await asyncio.to_thread(wait_until, lambda: metric(up, STOPPED) == 0, "the intake to go on")
        await fleet.publish(given_up)  # the same devices, with what they have no PUBACK for
        await nothing_lost(up, fleet)
        await asyncio.to_thread(ends_in_order, up)


def test_a_system_on_a_full_disk_waits_for_room_and_starts(tmp_path: Path, small_disk: SmallDisk) -> None:
    small_disk.fill()
    with Up(small_disk.path / "data", "--samples", "1", output=tmp_path / "up.txt") as up:
        up.wait_for("is full")
        assert up.process.poll() is None
        small_disk.empty()
        up.running().wait_for("(cluster)")
        ends_in_order(up)


def test_a_system_that_waits_for_room_can_be_stopped(tmp_path: Path, small_disk: SmallDisk) -> None:
    small_disk.fill()
    with Up(small_disk.path / "data", output=tmp_path / "up.txt") as up:
        up.wait_for("is full")
        assert up.stop() == 0
        assert left(up, set()) == []
