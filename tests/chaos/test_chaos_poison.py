"""What no reader was prepared for becomes a dead letter, once, and holds nobody else up."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.messages.bodies import Image
from fabwafer.messages.headers import Receipt
from fabwafer.messages.topics import MQTT_PREFIX
from fabwafer_bridge import streams
from fabwafer_bridge.consumer import refusal
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.intake import checked
from tests.chaos import ledger
from tests.chaos.system import running
from tests.support.nats_servers import NatsServer
from tests.support.running import ModelServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

DEEP = b"[" * 900 + b"]" * 900

POISON = {
    "half of a surrogate pair": b'"lot": "\\ud800"',
    "half of a surrogate pair in a field we do not know": b'"colour": "\\ud800"',
    "a time beyond any number": b'"timestamp": 1' + b"0" * 400,
    "a number of 5,000 digits": b'"slot": ' + b"1" * 5000,
    "nesting that can be read and not written": b'"colour": ' + DEEP,
}


def poisoned(image: Image, field: bytes) -> bytes:
    return json.dumps(image.model_dump(by_alias=True, exclude_none=True)).encode()[:-1] + b", " + field + b"}"


@pytest.mark.parametrize("field", POISON.values(), ids=POISON.keys())
def test_the_intake_refuses_a_message_that_cannot_be_passed_on(field: bytes) -> None:
    image = Image.of_file(encode(sample(0, 1)[0][1]), imgid="img1", timestamp=1, fab="fab1", camera="cam1")
    with pytest.raises(Exception, match=r".") as refused:
        checked(image.topic("img").subject, poisoned(image, field), Receipt(1, 1))
    assert refusal(Msg(None), refused.value).code in (Reason.JSON, Reason.FIELD, Reason.UNEXPECTED)  # type: ignore[arg-type]


async def test_poison_among_images_ends_neither_the_bridge_nor_them(
    tmp_path: Path, nats_server: NatsServer, model_server: ModelServer, chance: random.Random
) -> None:
    async with running(tmp_path, nats_server, model_server, chance) as system:
        good = system.fleet.images(20)
        await system.fleet.publish(good[:10])
        async with system.jetstream() as js:
            for image, field in zip(system.fleet.images(len(POISON)), POISON.values(), strict=True):
                await js.publish(MQTT_PREFIX + image.topic("img").subject, poisoned(image, field), stream=streams.MQTT)
        await system.fleet.publish(good[10:])
        await system.settled()
        ledger.check(system.fleet.published, system.records.wafers())
        async with system.jetstream() as js:
            assert (await js.stream_info(streams.DEAD)).state.messages == len(POISON)
        assert await asyncio.to_thread(system.bridge.metric, "fabwafer_redeliveries_total") == 0
