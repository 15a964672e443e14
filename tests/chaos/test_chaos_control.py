"""The checker is seen to fail: against a stream that captures the MQTT subject, acknowledged images are missing."""

import random
from pathlib import Path

import pytest

from tests.chaos import ledger, naive
from tests.chaos.system import chance, running
from tests.nats_servers import NatsServer, nats_server
from tests.running import ModelServer, model_server

__all__ = ["chance", "model_server", "nats_server"]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


async def test_a_stream_that_captures_the_mqtt_subject_loses_acknowledged_images_when_it_is_full(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, model_server, chance, only=naive.ONLY) as system:
        await naive.lay(nats_server.url, max_bytes=400_000)
        await system.fleet.publish(system.fleet.images(1000))
        assert system.fleet.acknowledged == system.fleet.published, "each had its PUBACK"
        system.durables = [(naive.STREAM, naive.DURABLE), *system.durables[1:]]
        async with naive.intake(nats_server.url):
            await system.settled()
        with pytest.raises(ledger.LostError, match="of 1000 images missing"):
            ledger.check(system.fleet.published, system.records.wafers())
