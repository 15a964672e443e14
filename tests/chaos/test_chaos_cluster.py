"""Three servers hold each stream three times: losing a leader loses nothing."""

import asyncio
import random
from pathlib import Path

import pytest

from fabwafer_bridge import streams
from tests.chaos.leaders import in_step, leads_without_mqtt
from tests.chaos.system import ROUNDS, running
from tests.support.nats_servers import NatsCluster
from tests.support.running import ModelServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(60 + 180 * ROUNDS)]

STEADY = 100.0
IMAGES = 300


async def test_killing_the_leader_of_the_images_under_load_loses_nothing(
    tmp_path: Path, nats_cluster: NatsCluster, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_cluster, model_server, chance, replicas=3) as system:
        for number in range(ROUNDS):
            await in_step(system)
            victim = await leads_without_mqtt(nats_cluster, streams.IMAGES)
            async with system.under_load(system.fleet.images(IMAGES), rate=STEADY):
                await system.fleet.until(number * IMAGES + chance.randint(IMAGES // 10, IMAGES * 8 // 10))
                victim.kill()
                # The others carry on alone: it comes back only after they have taken more.
                await system.fleet.until(len(system.fleet.acknowledged) + IMAGES // 10)
                await asyncio.to_thread(victim.start)
        await system.check()
        # Servers that the bus names itself are signed in at like those of the setting.
        assert "Authorization Violation" not in system.bridge.log.read_text()
