"""When `$MQTT_msgs` is full, an image is stored or its sender gets no PUBACK."""

import asyncio
import random
from pathlib import Path

import pytest

from fabwafer.messages.bodies import Image
from tests.chaos import ledger
from tests.chaos.fleet import key
from tests.chaos.system import ROUNDS, running
from tests.support.nats_servers import NatsServer
from tests.support.running import ModelServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(60 + 120 * ROUNDS)]


async def test_a_full_bus_refuses_what_it_cannot_store_and_works_again_when_it_is_drained(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, model_server, chance, in_flight=8, mqtt_max_bytes=300_000) as system:
        fleet = system.fleet
        for _ in range(ROUNDS):
            before = len(fleet.acknowledged)
            await asyncio.to_thread(system.bridge.stop)  # nobody takes anything out
            refused: list[Image] = []
            while not refused:
                refused = await fleet.publish(fleet.images(100), once=True)
            more = fleet.images(1000)
            refused += await fleet.publish(more, once=True)
            assert len(refused) > 500, "it was not full"
            assert fleet.acknowledged.isdisjoint(key(image) for image in refused)
            assert len(fleet.acknowledged) > before

            await asyncio.to_thread(system.bridge.start)
            await system.settled()
            # Stored, or refused: and of the refused ones some may be stored whose connection closed before its PUBACK.
            ledger.check(fleet.acknowledged, system.records.wafers(), whole=False)

            await fleet.publish(chance.sample(refused, 100))  # the same devices, with what they kept
            await system.settled()
            ledger.check(fleet.acknowledged, system.records.wafers(), whole=False)
