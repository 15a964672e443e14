"""The gateway: devices that stay on another MQTT broker, joined to the bus without losing what they send.

A message is acknowledged to the other broker after the bus has stored it where the listener for devices stores what it
gives a PUBACK for: in `$MQTT_msgs`. From there on it is handled like any device's.
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
from nats.js import JetStreamContext
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fabwafer.messages.headers import CODE, MQTT_PUBLISH, REASON, SOURCE, SUBJECT
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import ALERT_TOPICS, MQTT_PREFIX, PREDICTION_TOPICS, Topic
from fabwafer.service.health import HealthServer
from fabwafer.service.process import end
from fabwafer_bridge import dead_letters, metrics, streams
from fabwafer_bridge.connection import connect
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.external_broker import MAX_INFLIGHT, Address, ExternalBroker, Inbound
from fabwafer_bridge.publisher import Outgoing, Publisher

GATEWAY: Final = streams.ConsumerName.GATEWAY

OUTWARD_SUBJECTS: Final = (PREDICTION_TOPICS, ALERT_TOPICS)
ENVELOPE: Final = 8192
"""Bytes that a message's headers may take of the bus's largest message; above it the bus cuts the connection."""
SHOWN_TOPIC: Final = 200
SHOWN_NAME: Final = 65
"""One more than a name may have, so that a name that is too long stays one when it is cut."""
DRAIN_SECONDS: Final = 8.0
"""How long what is being stored may take after SIGTERM; the broker delivers the rest to the next process."""

_FILTER: Final = re.compile(r"fabwafer/(\+|[\w-]+)/(\+|[\w-]+)/(img|prediction)/(\+|[\w-]+)", re.ASCII)

log = structlog.get_logger()


class GatewaySettings(BaseSettings):
    """Settings of the gateway; each is read from FABWAFER_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="FABWAFER_", frozen=True, hide_input_in_errors=True)

    external_broker_url: str
    """The other broker: `mqtt://USER:PASSWORD@HOST:PORT`, or `mqtts://` for TLS."""
    external_broker_ca_file: str | None = None
    """With mqtts: the certificate authority that the broker's certificate must come from. Default: the system's."""
    nats_url: str = "nats://127.0.0.1:4222"
    """The bus, with the user and password of the bridge; several servers of a cluster separated by commas."""
    gateway_topics: Annotated[tuple[str, ...], NoDecode] = ("fabwafer/+/+/img/+", "fabwafer/+/+/prediction/+")
    """What is taken from the other broker, separated by commas."""
    gateway_client_id: str = Field(default="fabwafer-gateway", min_length=1)
    """The name of the gateway's session. One process at a time may use it on a broker."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """Where /metrics, /healthz and /readyz answer; 0 takes a free port."""

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


def entering(topic: str, payload: bytes, max_payload: int) -> Outgoing | None:
    """Says what enters the bus for a message of the other broker.

    Args:
        topic: As the broker says it, five levels.
        payload: The message's body.
        max_payload: The largest message that the bus takes, headers included, in bytes.

    Returns:
        The message as the listener for devices would have stored it; its dead letter, where its topic or size do not
        fit the bus; None for a prediction of the cluster's own, which some gateway sent out.
    """
    subject = _subject(topic)
    try:
        kind = Topic.from_subject(subject).kind
    except MessageRefusedError:
        shown = topic if len(topic) <= SHOWN_TOPIC else topic[:SHOWN_TOPIC] + "..."
        reason = f"expected a topic with names of 1 to 64 letters, digits, '_' or '-', got {shown!r}"
        return _letter(topic, payload, reason, max_payload)
    if len(payload) > max_payload - ENVELOPE:
        return _letter(topic, payload, f"expected at most {max_payload - ENVELOPE} bytes", max_payload)
    if kind == "prediction" and _is_clusters(payload):
        return None
    return Outgoing(MQTT_PREFIX + subject, payload, {MQTT_PUBLISH: "1"})


def _subject(topic: str) -> str:
    """What is no name stays recognizable, and is refused again should its dead letter be replayed."""
    levels = (quote(level[:SHOWN_NAME], safe="").replace(".", "%2E") or "%" for level in topic.split("/"))
    return ".".join(levels)


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
    """Carries messages between the other broker and the bus.

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
        """Carries messages until `stopping` is set, then finishes what is under way.

        Raises:
            Exception: Something failed that there is no answer to; the process should end and be started anew.
        """
        health = HealthServer(self._why_unready)
        log.info("metrics", address=await health.start(self._settings.metrics_host, self._settings.metrics_port))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(health.stop)
            carrying = asyncio.create_task(self._carry(stack))
            stop = asyncio.create_task(stopping.wait())
            await asyncio.wait([stop, carrying], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if carrying.done():
                carrying.result()  # it never returns: it raised
            await self._drain(carrying)

    async def _carry(self, stack: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        died: asyncio.Future[None] = loop.create_future()

        def thread_died(hook: Any) -> None:
            error = hook.exc_value or RuntimeError("the thread of the other broker's connection ended")
            loop.call_soon_threadsafe(died.set_exception, error)

        threading.excepthook = thread_died
        client = await connect(self._settings.nats_url, name="fabwafer-gateway")
        stack.push_async_callback(_close, client)
        js = client.jetstream(timeout=5)
        await _until_intake_stands(js)
        self._client = client

        def received(message: Inbound) -> None:
            loop.call_soon_threadsafe(self._receive, message)

        settings = self._settings
        foreign = ExternalBroker(
            Address.of(settings.external_broker_url),
            client_id=settings.gateway_client_id,
            topics=settings.gateway_topics,
            ca_file=settings.external_broker_ca_file,
            received=received,
        )
        for subject in OUTWARD_SUBJECTS:
            await client.subscribe(subject, cb=self._send_out)
        self._external = foreign
        foreign.start()
        stack.push_async_callback(foreign.stop)
        inward = asyncio.create_task(self._store(Publisher(client), foreign))
        try:
            await asyncio.wait([inward, died], return_when=asyncio.FIRST_COMPLETED)
            for task in (inward, died):
                if task.done():
                    task.result()
        finally:
            inward.cancel()

    def _why_unready(self) -> str | None:
        if self._stopping:
            return "stopping"
        if self._client is None or self._external is None:
            return "the bus, or the bridge's intake on it, is not there yet"
        return self._external.unready if self._client.is_connected else "the bus is away"

    def _receive(self, message: Inbound) -> None:
        if self._stopping:
            return
        if message.qos == 0 and len(self._waiting) >= 2 * MAX_INFLIGHT:
            # The broker holds back nothing of what was sent with QoS 0; it must not fill the memory instead.
            metrics.MESSAGES.labels(GATEWAY, "dropped").inc()
            return
        self._waiting.append(message)
        self._arrived.set()

    async def _store(self, publisher: Publisher, foreign: ExternalBroker) -> None:
        """Stores what came, for as long as it takes; acknowledged after that, in the order it came."""
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
                if never is not None:  # the stream has a limit of its own, lower than the bus's
                    letter = _letter(batch[index].topic, batch[index].payload, str(never), max_payload=0)
                    await publisher.store([letter])
                    outgoing[index] = letter
            for message, stored in zip(batch, outgoing, strict=True):
                foreign.acknowledge(message)
                _count(stored)
            self._busy = False

    async def _send_out(self, message: Msg) -> None:
        if (message.headers or {}).get(SOURCE) != "cluster" or self._external is None:
            return
        kept = self._external.send(message.subject.replace(".", "/"), message.data)
        metrics.MESSAGES.labels(GATEWAY, "returned" if kept else "not_returned").inc()

    async def _drain(self, carrying: asyncio.Task[None]) -> None:
        """Lets what is being stored finish; what is not stored by then stays unacknowledged with the other broker."""
        self._stopping = True
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline and (self._busy or self._waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await end([carrying])
        log.info("drained", not_stored=len(self._waiting), storing=self._busy)


def _count(stored: Outgoing | None) -> None:
    if stored is None:
        metrics.MESSAGES.labels(GATEWAY, "ignored").inc()
    elif REASON in stored.headers:
        metrics.MESSAGES.labels(GATEWAY, "dead").inc()
        metrics.DEAD_LETTERS.labels(stored.headers[CODE]).inc()
        log.warning("refused", topic=stored.headers[SUBJECT], reason=stored.headers[REASON])
    else:
        metrics.MESSAGES.labels(GATEWAY, "passed").inc()


async def _until_intake_stands(js: JetStreamContext) -> None:
    """Waits for the bridge to make its durable: without it the bus takes messages, and keeps none of them."""
    pause = 0.1
    while True:
        try:
            await js.consumer_info(streams.MQTT, streams.INTAKE)
        except (NatsError, TimeoutError) as error:
            log.info("intake not there yet", error=repr(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)
        else:
            return


async def _close(client: Client) -> None:
    with contextlib.suppress(NatsError, OSError, TimeoutError):  # it may be away at this moment
        await client.close()
