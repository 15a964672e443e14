"""The loop that all consumers share, and what it does with a message that it cannot use."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from fabwafer.messages.headers import MESSAGE_ID
from fabwafer_bridge.consumer import Consumer, Refused
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.inference import Answer, ModelServerError
from fabwafer_bridge.jobs import Job, JobConsumer
from fabwafer_bridge.publisher import NeverStoredError, Outgoing, Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.streams import ConsumerName


class NoDeadStream(Publisher):
    """A publisher whose stream of dead letters has no leader: what it is given waits."""

    def __init__(self) -> None:
        self.given: list[Outgoing] = []

    async def store(self, messages: Sequence[Outgoing]) -> list[NeverStoredError | None]:
        self.given += messages
        await asyncio.Event().wait()
        return []


class Lengths(Consumer[int]):
    """A consumer that can use digits alone."""

    def __init__(self, name: ConsumerName, publisher: Publisher) -> None:
        super().__init__(name, Puller(Client(), "S", "d"), publisher, most=10)
        self.handled: list[int] = []

    def read(self, message: Msg) -> int:
        return int(message.data)

    async def handle(self, items: Sequence[int]) -> None:
        self.handled += items


def native(data: bytes, headers: dict[str, str] | None = None) -> Msg:
    """A message that came without a stream."""
    return Msg(Client(), subject="fabwafer.f.c.img.w", data=data, headers=headers)


def delivered(data: bytes) -> Msg:
    """The seventh message of a stream."""
    return Msg(
        Client(), subject="fabwafer-images.f.c.w", reply="$JS.ACK.IMAGES.d.1.7.7.1700000000000000000.0", data=data
    )


async def test_a_message_that_waits_for_its_dead_letter_holds_no_neighbour_back() -> None:
    publisher = NoDeadStream()
    lengths = Lengths(ConsumerName.CLASSIFY, publisher)
    working = asyncio.create_task(lengths.process([native(b"bad"), native(b"7")]))
    async with asyncio.timeout(10):
        while not publisher.given:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert lengths.handled == [7]
    working.cancel()


async def test_the_headers_of_a_native_publisher_are_not_carried_into_a_dead_letter() -> None:
    letter = Lengths(ConsumerName.INTAKE, NoDeadStream())._letter(
        Refused(native(b"bad", {"Fabwafer-(a)": "x", "Fabwafer-Own": "y"}), "why", Reason.JSON)
    )
    assert not {"Fabwafer-(a)", "Fabwafer-Own"} & letter.headers.keys()


async def test_two_consumers_that_refuse_the_same_message_make_a_dead_letter_each() -> None:
    refused = Refused(delivered(b"bad"), "why", Reason.UNEXPECTED)
    names = (ConsumerName.CLASSIFY, ConsumerName.RECORD_IMAGES)
    letters = [Lengths(name, NoDeadStream())._letter(refused) for name in names]
    assert len({letter.headers[MESSAGE_ID] for letter in letters}) == 2


class Fragile:
    """A model server that an image P takes down for a moment, with all that it is asked at that time."""

    def __init__(self) -> None:
        self._asked: set[asyncio.Future[None]] = set()

    async def classify(self, images: Sequence[bytes]) -> list[Answer]:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.add(failed)
        try:
            if b"P" in images:
                await asyncio.sleep(0.01)
                for one in self._asked:
                    if not one.done():
                        one.set_result(None)
                raise ModelServerError("crashed")
            await asyncio.wait([failed], timeout=0.03)
            if failed.done():
                raise ModelServerError("crashed")
            answer: Any = SimpleNamespace(model="m", digest="d", label="x")
            return [answer] * len(images)
        finally:
            self._asked.discard(failed)

    async def healthy(self) -> bool:
        await asyncio.sleep(0.001)
        return True


class Jobs(JobConsumer):
    """Notes what becomes of images."""

    def __init__(self) -> None:
        super().__init__(ConsumerName.CLASSIFY, Puller(Client(), "S", "d"), NoDeadStream(), Fragile())
        self.stored: list[bytes] = []
        self.given_up: list[bytes] = []

    async def store(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        self.stored += [job.message.data for job in jobs]

    async def give_up(self, job: Job, reason: str) -> None:
        self.given_up.append(job.message.data)


def job(data: bytes) -> Job:
    made: Any = SimpleNamespace(message=SimpleNamespace(data=data), pixels=1, image=None)
    result: Job = made
    return result


async def test_an_innocent_image_is_not_blamed_beside_one_that_makes_the_server_fail() -> None:
    jobs = Jobs()
    await asyncio.wait_for(asyncio.gather(jobs.handle([job(b"P")]), jobs.handle([job(b"Q"), job(b"R")])), 30)
    assert jobs.given_up == [b"P"]
    assert sorted(jobs.stored) == [b"Q", b"R"]
