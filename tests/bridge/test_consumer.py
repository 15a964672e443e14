"""The loop that all consumers share, and what it does with a message that it cannot use."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from sqlalchemy.exc import DataError

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages.headers import CODE, MESSAGE_ID, REASON
from fabwafer_bridge import consumer, streams
from fabwafer_bridge.consumer import TRIES_ALONE, Consumer, Refused
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.inference import Answer, ModelServerError
from fabwafer_bridge.jobs import Job, JobConsumer
from fabwafer_bridge.publisher import NeverStoredError, Outgoing, Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.record import RecordConsumer
from fabwafer_bridge.service import Bridge
from fabwafer_bridge.streams import ConsumerName
from tests.support.nats_servers import NatsServer


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


async def test_a_bus_delivers_again_what_failed_alone_until_it_is_a_dead_letter(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    js = client.jetstream()
    await streams.ensure_streams(js, replicas=1, mqtt_max_bytes=1 << 24, max_bytes=1 << 24)
    puller = Puller(client, streams.IMAGES, ConsumerName.CLASSIFY)
    await puller.start()
    work = Raising(puller, bad(2), Publisher(client))
    for number in (1, 2, 3):
        await js.publish(f"fabwafer-images.f.c.w{number}", str(number).encode())
    async with running(work):
        async with asyncio.timeout(30):
            while not (await js.stream_info(streams.DEAD)).state.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            while (await js.consumer_info(streams.IMAGES, ConsumerName.CLASSIFY)).num_ack_pending:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert work.tries.count([2]) == TRIES_ALONE
    assert sorted(work.handled) == [1, 3]
    await client.close()


async def test_a_message_without_a_stream_that_raises_is_a_dead_letter_at_once() -> None:
    work = Raising(Stream([]), bad(7))
    await work.process([native(b"7")])
    assert [letter.payload for letter in work.letters.stored] == [b"7"]


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

    async def classify(self, images: Sequence[bytes], colours: Sequence[StatedColours | None] = ()) -> list[Answer]:
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
        super().__init__(
            ConsumerName.CLASSIFY, Puller(Client(), "S", "d"), NoDeadStream(), Fragile(), lambda image: None
        )
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


class Stream(Puller):
    """A stream in memory, which delivers again what is given back."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(Client(), "S", "d")
        self.acknowledged: list[int] = []
        for number in numbers:
            self.publish(number)

    def publish(self, number: int) -> None:
        self._waiting.append((float("inf"), Delivered(self, number)))
        self._arrived.set()


class Delivered(Msg):
    """A message of that stream; its number is its payload and its place."""

    def __init__(self, stream: Stream, number: int) -> None:
        reply = f"$JS.ACK.IMAGES.d.1.{number}.{number}.1700000000000000000.0"
        super().__init__(Client(), subject="fabwafer-images.f.c.w", reply=reply, data=str(number).encode())
        self._stream = stream

    async def ack(self) -> None:
        self._stream.acknowledged.append(int(self.data))

    async def nak(self, delay: float | None = None) -> None:
        self._ackd = True
        self._stream.publish(int(self.data))


class Letters(Publisher):
    """A publisher that stores dead letters."""

    def __init__(self) -> None:
        self.stored: list[Outgoing] = []

    async def store(self, messages: Sequence[Outgoing]) -> list[NeverStoredError | None]:
        self.stored += messages
        return [None] * len(messages)


class Raising(Lengths):
    """A consumer whose `handle` raises what it is told to, for each number."""

    def __init__(
        self, puller: Puller, raised: Callable[[int], Exception | None], publisher: Publisher | None = None
    ) -> None:
        self.letters = Letters()
        super().__init__(ConsumerName.CLASSIFY, publisher or self.letters)
        self._puller = puller
        self.raised = raised
        self.tries: list[list[int]] = []

    async def handle(self, items: Sequence[int]) -> None:
        self.tries.append(list(items))
        for item in items:
            if (error := self.raised(item)) is not None:
                raise error
        self.handled += items


@contextlib.asynccontextmanager
async def running(work: Consumer[int]) -> AsyncIterator[None]:
    task = asyncio.create_task(work.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "LONGEST_PAUSE", 0.02)


def readiness(work: Consumer[int]) -> str | None:
    """What `/readyz` of a bridge with this consumer says."""
    settings: Any = None
    bridge = Bridge(settings, ["classify"])
    runtime: Any = SimpleNamespace(consumers=[work], guard=None, champion=None)
    bridge._unready, bridge._runtime = None, runtime
    return bridge._why_unready()


def bad(number: int) -> Callable[[int], Exception | None]:
    return lambda item: KeyError("no such thing") if item == number else None


@pytest.mark.usefixtures("short_pauses")
async def test_a_message_that_raises_is_a_dead_letter_after_five_tries_alone_and_its_neighbours_pass() -> None:
    stream = Stream([1, 2, 3])
    work = Raising(stream, bad(2))
    async with running(work):
        await until(lambda: len(stream.acknowledged) == 3)
    assert work.tries.count([2]) == TRIES_ALONE
    assert sorted(work.handled) == [1, 3]
    assert work.unready is None
    (letter,) = work.letters.stored
    assert letter.payload == b"2"
    assert letter.headers[CODE] == Reason.UNEXPECTED
    assert "KeyError: 'no such thing'" in letter.headers[REASON]


@pytest.mark.usefixtures("short_pauses")
async def test_a_consumer_in_which_all_raise_keeps_them_all_is_unready_and_recovers() -> None:
    stream = Stream(range(1, 13))
    work = Raising(stream, lambda _: ValueError("a bad release"))
    async with running(work):
        await until(lambda: work.tries.count([1]) > 3 * TRIES_ALONE)
        sentence = "classify: no message succeeds, ValueError: a bad release"
        assert (work.unready, readiness(work)) == (sentence, sentence)
        assert not stream.acknowledged
        work.raised = lambda _: None
        await until(lambda: len(stream.acknowledged) == 12)
    assert (work.unready, readiness(work)) == (None, None)
    assert not work.letters.stored


@pytest.mark.usefixtures("short_pauses")
async def test_a_message_that_raises_alone_waits_until_another_succeeds() -> None:
    stream = Stream([1])
    work = Raising(stream, bad(1))
    async with running(work):
        await until(lambda: len(work.tries) > 2 * TRIES_ALONE)
        assert not stream.acknowledged
        stream.publish(2)
        await until(lambda: len(stream.acknowledged) == 2)
    assert [letter.payload for letter in work.letters.stored] == [b"1"]


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("outage", [OSError("no route"), TimeoutError(), ModelServerError("down")])
async def test_an_outage_counts_against_nobody(outage: Exception) -> None:
    stream = Stream([1, 2])
    work = Raising(stream, lambda _: outage)
    async with running(work):
        await until(lambda: len(work.tries) > 3 * TRIES_ALONE)
        assert (work.unready, stream.acknowledged) == (None, [])
        work.raised = lambda _: None
        await until(lambda: len(stream.acknowledged) == 2)
    assert all(tried == [1, 2] for tried in work.tries)
    assert not work.letters.stored


@pytest.mark.usefixtures("short_pauses")
async def test_a_consumer_goes_on_after_an_exception_outside_of_any_message() -> None:
    class Unlucky(Raising):
        lucky = False

        async def ready(self) -> None:
            if not self.lucky:
                self.lucky = True
                raise ZeroDivisionError

    stream = Stream([1])
    async with running(Unlucky(stream, lambda _: None)):
        await until(lambda: stream.acknowledged == [1])


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("refused", [[2], [1, 2, 3]])
async def test_rows_that_the_database_refuses_are_dead_letters_only_while_others_are_stored(refused: list[int]) -> None:
    stored: list[int] = []
    tries: list[int] = []

    def store(rows: Sequence[int]) -> None:
        tries.append(len(rows))
        if set(rows) & set(refused):
            raise DataError("INSERT", {}, Exception("out of range"))
        stored.extend(rows)

    stream, letters = Stream([1, 2, 3]), Letters()
    work = RecordConsumer(
        ConsumerName.RECORD_IMAGES, stream, letters, asyncio.Lock(), lambda message: int(message.data), store
    )
    async with running(work):
        if refused == [2]:
            await until(lambda: len(stream.acknowledged) == 3)
            assert [letter.headers[CODE] for letter in letters.stored] == [Reason.REFUSED_BY_RECORDS]
            assert stored == [1, 3]
        else:
            await until(lambda: len(tries) > 3 * TRIES_ALONE)
            assert not letters.stored
            assert work.unready is not None
            assert "out of range" in work.unready
