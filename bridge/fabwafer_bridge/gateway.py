"""The gateway: connects devices on an external MQTT broker to the bus without losing what they send.

A message is acknowledged to the external broker after the bus has stored it in `$MQTT_msgs`, where the bus's own MQTT
listener stores what it has given a PUBACK for. From there on it is handled like any device's message.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import threading
import time
from typing import Annotated, Any, Final
from urllib.parse import quote

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from fabwafer.messages.headers import CODE, MQTT_PUBLISH, REASON, SOURCE, SUBJECT
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import ALERT_TOPICS, MQTT_PREFIX, PREDICTION_TOPICS, SMOKE_TEST_FAB, Topic
from fabwafer.service.addresses import with_credentials
from fabwafer.service.health import HealthServer
from fabwafer.service.process import end, first_of
from fabwafer.service.settings import BusSettings, MetricsSettings
from fabwafer_bridge import dead_letters, metrics, streams
from fabwafer_bridge.connection import connect, until_closed
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.external_broker import MAX_INFLIGHT, Address, ExternalBroker, Inbound
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Outgoing, Publisher

GATEWAY: Final = streams.ConsumerName.GATEWAY

OUTWARD_SUBJECTS: Final = (PREDICTION_TOPICS, ALERT_TOPICS)
ENVELOPE: Final = 8192
"""Bytes of the bus's largest message that are left for headers; above it the bus closes the connection."""
SHOWN_TOPIC: Final = 200
SHOWN_NAME: Final = 65
"""One more than a name may have, so that a name that is too long is still too long when it is cut."""
DRAIN_SECONDS: Final = 8.0
"""How long storing may take after SIGTERM; the broker delivers the rest to the next process."""

_FILTER: Final = re.compile(r"fabwafer/(\+|[\w-]+)/(\+|[\w-]+)/(img|prediction)/(\+|[\w-]+)", re.ASCII)

log = structlog.get_logger()


class GatewaySettings(BusSettings, MetricsSettings):
    """Settings of the gateway; each is read from FABWAFER_<NAME>."""

    external_broker_url: str
    """The external broker: `mqtt://HOST:PORT`, or `mqtts://` for TLS. It may hold a user and password."""
    external_broker_user: str | None = None
    """The gateway's user on that broker, where the URL holds none."""
    external_broker_password: SecretStr | None = None
    """Its password."""
    external_broker_ca_file: str | None = None
    """With mqtts: the certificate authority that the broker's certificate must come from. Default: the system's."""
    gateway_topics: Annotated[tuple[str, ...], NoDecode] = ("fabwafer/+/+/img/+", "fabwafer/+/+/prediction/+")
    """Topic filters to subscribe to on the external broker, separated by commas."""
    gateway_client_id: str = Field(default="fabwafer-gateway", min_length=1)
    """The client id of the gateway's session. One process at a time may use it on a broker."""

    @field_validator("external_broker_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        Address.of(url)
        return url

    @field_validator("gateway_topics", mode="before")
    @classmethod
    def _are_filters(cls, value: object) -> object:
        filters = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
        for each in filters if isinstance(filters, tuple) else ():
            if not _FILTER.fullmatch(str(each)):
                raise ValueError(
                    f"expected fabwafer/FAB/CAMERA/img/IMGID or .../prediction/IMGID, + for any, got {each!r}"
                )
        return filters

    @property
    def external_broker(self) -> Address:
        """The external broker, with the credentials."""
        user, password = self.external_broker_user, self.external_broker_password
        return Address.of(with_credentials(self.external_broker_url, user, password))


def entering(topic: str, payload: bytes, max_payload: int) -> Outgoing | None:
    """Return what is stored on the bus for a message of the external broker.

    Args:
        topic: The message's topic there, of five levels.
        payload: The message's body.
        max_payload: The largest message that the bus takes, headers included, in bytes.

    Returns:
        The message as the bus's MQTT listener would have stored it; a dead letter where its topic or size do not fit
        the bus; None for a prediction of the cluster itself, which a gateway published there.
    """
    subject = _subject(topic)
    try:
        kind = Topic.from_subject(subject).kind
    except MessageRefusedError:
        shown = topic if len(topic) <= SHOWN_TOPIC else topic[:SHOWN_TOPIC] + "..."
        expected = "a topic with names of 1 to 64 letters, digits, '_' or '-'"
        if _is_smoke_tests(topic):
            expected = f"a fab with another name than {SMOKE_TEST_FAB}, which is the smoke test's"
        reason = f"expected {expected}, got {shown!r}"
        return _letter(topic, payload, reason, max_payload)
    if len(payload) > max_payload - ENVELOPE:
        return _letter(topic, payload, f"expected at most {max_payload - ENVELOPE} bytes", max_payload)
    if kind == "prediction" and _is_clusters(payload):
        return None
    return Outgoing(MQTT_PREFIX + subject, payload, {MQTT_PUBLISH: "1"})


def _subject(topic: str) -> str:
    """Escape what is not allowed in a name, so that it stays readable and is refused again when replayed."""
    levels = [quote(level[:SHOWN_NAME], safe="").replace(".", "%2E") or "%" for level in topic.split("/")]
    if _is_smoke_tests(topic):
        levels[1] = f"%{SMOKE_TEST_FAB}"
    return ".".join(levels)


def _is_smoke_tests(topic: str) -> bool:
    return topic.split("/")[1:2] == [SMOKE_TEST_FAB]


def _letter(topic: str, payload: bytes, reason: str, max_payload: int) -> Outgoing:
    fits = len(payload) <= max_payload - ENVELOPE
    return dead_letters.letter(
        GATEWAY,
        subject=topic[:SHOWN_TOPIC].encode("unicode_escape").decode(),  # a header is one line of text
        origin=MQTT_PREFIX + _subject(topic),
        payload=payload if fits else b"",
        reason=reason if fits else f"{reason}; the {len(payload)} bytes that came are not kept",
        code=Reason.TOPIC if fits else Reason.TOO_LARGE,
        message_id=hashlib.blake2b(topic.encode() + b"\0" + payload, digest_size=16).hexdigest(),
        headers={},
    )


def _is_clusters(payload: bytes) -> bool:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        return False  # the intake will say what is wrong with it
    return isinstance(body, dict) and body.get("source") == "cluster"


class Gateway:
    """Carries messages between the external broker and the bus.

    Args:
        settings: What the operator set.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._waiting: list[Inbound] = []
        self._arrived = asyncio.Event()
        self._busy = False
        self._stopping = False
        self._client: Client | None = None
        self._external: ExternalBroker | None = None
        metrics.start_at_zero(GATEWAY)

    async def run(self, stopping: asyncio.Event) -> None:
        """Carry messages until `stopping` is set, then finish what is under way.

        Raises:
            Exception: An unexpected failure; the process should end and be started anew.
        """
        health = HealthServer(self._why_unready)
        log.info("metrics", address=await health.start(self._settings.metrics_host, self._settings.metrics_port))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(health.stop)
            carrying = asyncio.create_task(self._carry(stack))
            await first_of(stopping, carrying)
            await self._drain(carrying)

    async def _carry(self, stack: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        died: asyncio.Future[None] = loop.create_future()

        def thread_died(hook: Any) -> None:
            error = hook.exc_value or RuntimeError("the thread of the external broker's connection ended")
            loop.call_soon_threadsafe(died.set_exception, error)

        threading.excepthook = thread_died
        client = await connect(self._settings.bus_url, name="fabwafer-gateway")
        stack.push_async_callback(_close, client)
        await streams.wait_for_streams(client.jetstream(timeout=5))
        self._client = client

        def received(message: Inbound) -> None:
            loop.call_soon_threadsafe(self._receive, message)

        settings = self._settings
        broker = ExternalBroker(
            settings.external_broker,
            client_id=settings.gateway_client_id,
            topics=settings.gateway_topics,
            ca_file=settings.external_broker_ca_file,
            received=received,
        )
        for subject in OUTWARD_SUBJECTS:
            await client.subscribe(subject, cb=self._send_out)
        self._external = broker
        broker.start()
        stack.push_async_callback(broker.stop)
        inward = asyncio.create_task(self._store(Publisher(client), broker))
        closed = asyncio.create_task(until_closed(client))
        try:
            await asyncio.wait([inward, died, closed], return_when=asyncio.FIRST_COMPLETED)
            for task in (inward, died, closed):
                if task.done():
                    task.result()
        finally:
            closed.cancel()
            inward.cancel()

    def _why_unready(self) -> str | None:
        if self._stopping:
            return "stopping"
        if self._client is None or self._external is None:
            return "the bus, or its streams, are not there yet"
        return self._external.unready if self._client.is_connected else "the bus is away"

    def _receive(self, message: Inbound) -> None:
        if self._stopping:
            return
        if message.qos == 0 and len(self._waiting) >= 2 * MAX_INFLIGHT:
            # The broker does not limit messages of QoS 0 under way, so the queue here is bounded.
            metrics.MESSAGES.labels(GATEWAY, Result.DROPPED).inc()
            return
        self._waiting.append(message)
        self._arrived.set()

    async def _store(self, publisher: Publisher, broker: ExternalBroker) -> None:
        """Store what was received, for as long as it takes, then acknowledge it in the order of receipt."""
        assert self._client is not None  # noqa: S101 - set before this starts
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._waiting = self._waiting, []
            self._busy = True
            limit = self._client.max_payload
            outgoing = [entering(message.topic, message.payload, limit) for message in batch]
            entered = [index for index, each in enumerate(outgoing) if each is not None]
            results = await publisher.store([each for each in outgoing if each is not None])
            for index, never in zip(entered, results, strict=True):
                if never is not None:  # larger than the stream's own limit, which is below the bus's
                    letter = _letter(batch[index].topic, batch[index].payload, str(never), max_payload=0)
                    await publisher.store([letter])
                    outgoing[index] = letter
            for message, stored in zip(batch, outgoing, strict=True):
                broker.acknowledge(message)
                _count(stored)
            self._busy = False

    async def _send_out(self, message: Msg) -> None:
        topic = message.subject.replace(".", "/")
        if (message.headers or {}).get(SOURCE) != "cluster" or self._external is None or _is_smoke_tests(topic):
            return
        queued = self._external.send(topic, message.data)
        metrics.MESSAGES.labels(GATEWAY, Result.RETURNED if queued else Result.NOT_RETURNED).inc()

    async def _drain(self, carrying: asyncio.Task[None]) -> None:
        """Finish what is being stored; what is not stored by then stays unacknowledged on the external broker."""
        self._stopping = True
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline and (self._busy or self._waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await end([carrying])
        log.info("drained", not_stored=len(self._waiting), storing=self._busy)


def _count(stored: Outgoing | None) -> None:
    if stored is None:
        metrics.MESSAGES.labels(GATEWAY, Result.IGNORED).inc()
    elif REASON in stored.headers:
        metrics.MESSAGES.labels(GATEWAY, Result.DEAD).inc()
        metrics.DEAD_LETTERS.labels(stored.headers[CODE]).inc()
        log.warning("refused", topic=stored.headers[SUBJECT], reason=stored.headers[REASON])
    else:
        metrics.MESSAGES.labels(GATEWAY, Result.PASSED).inc()


async def _close(client: Client) -> None:
    with contextlib.suppress(NatsError, OSError):  # it may be away at this moment
        await client.close()
