"""The persistent session with an external MQTT broker, with manual acknowledgements."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

import structlog
from paho.mqtt.client import Client as MqttClient
from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

MAX_INFLIGHT: Final = 50
"""Messages that the external broker may send without an acknowledgement."""
OUTWARD_QUEUE: Final = 1000
"""Messages that wait in memory while the external broker is away; above it, new ones are dropped."""
KEEPALIVE: Final = 20
FOR_EVER: Final = 0xFFFFFFFF
LEAVE_SECONDS: Final = 3.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a broker, with credentials."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    @classmethod
    def of(cls, url: str) -> "Address":
        """Parse `mqtt://USER:PASSWORD@HOST:PORT`; the default port is 1883, with mqtts 8883.

        Raises:
            ValueError: It is no such address. The text does not repeat it, since it may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError("expected mqtt://USER:PASSWORD@HOST:PORT or mqtts://...")
        tls = parts.scheme == "mqtts"
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, user, password)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message of the external broker; `connection` numbers the connection that its packet id (`mid`) belongs to."""

    connection: int
    mid: int
    qos: int
    topic: str
    payload: bytes


class ExternalBroker:
    """The session with the external broker, which keeps it while the gateway is away.

    paho's thread calls `received`; all else is called in the event loop.

    Args:
        address: The broker's address.
        client_id: The session's client id.
        topics: Topic filters to subscribe to.
        ca_file: The certificate authority for TLS; None for the system's.
        received: Called with each message.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_id: str,
        topics: Sequence[str],
        ca_file: str | None,
        received: Callable[[Inbound], None],
    ) -> None:
        self._address = address
        self._topics = topics
        self._received = received
        self._lock = threading.Lock()
        self._connection = 0
        self.unready: str | None = "not connected to the external broker yet"
        # MQTT 5 for three features: a limit of messages under way, an expiry of the session, and no delivery of what
        # this client itself published.
        client = MqttClient(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        client.username_pw_set(self._address.user, self._address.password)
        if self._address.tls:
            client.tls_set(ca_certs=ca_file)
        client.reconnect_delay_set(1, 8)
        client.max_queued_messages_set(OUTWARD_QUEUE)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._client = client

    def start(self) -> None:
        """Connect, and reconnect whenever the connection is lost."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = FOR_EVER
        properties.ReceiveMaximum = MAX_INFLIGHT
        self._client.connect_async(
            self._address.host, self._address.port, KEEPALIVE, clean_start=False, properties=properties
        )
        self._client.loop_start()

    def acknowledge(self, message: Inbound) -> None:
        """Acknowledge a message, unless its connection is gone: then the broker sends it again.

        It takes the lock, since on a new connection the same packet id may mean another message.
        """
        with self._lock:
            if message.connection == self._connection:
                self._client.ack(message.mid, message.qos)

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a message, or queue it until the broker is back; return False when the queue is full."""
        return self._client.publish(topic, payload, qos=1).rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE

    async def stop(self) -> None:
        """Disconnect; the broker keeps the session. Acknowledgements already given are still sent."""
        self._client.disconnect()
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._client.is_connected() and time.monotonic() < deadline:  # noqa: ASYNC110 - paho's thread disconnects
            await asyncio.sleep(0.02)

    def _on_connect(
        self, client: MqttClient, _: object, flags: ConnectFlags, reason: ReasonCode, __: Properties | None
    ) -> None:
        if reason.is_failure:
            self.unready = f"the external broker refuses the connection: {reason}"
            log.warning("external broker refuses", reason=str(reason))
            return
        log.info("external broker connected", session_present=flags.session_present)
        # Each time, for a broker that lost the session; retained messages are sent only for a new subscription.
        options = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        client.subscribe([(each, options) for each in self._topics])

    def _on_connect_fail(self, _: MqttClient, __: object) -> None:
        self.unready = "the external broker does not answer"
        log.warning("external broker does not answer", host=self._address.host, port=self._address.port)

    def _on_subscribe(
        self, _: MqttClient, __: object, ___: int, reasons: list[ReasonCode], ____: Properties | None
    ) -> None:
        refused = [
            f"{topic}: {reason}" for topic, reason in zip(self._topics, reasons, strict=False) if reason.is_failure
        ]
        self.unready = f"the external broker refuses the subscription {', '.join(refused)}" if refused else None
        if refused:
            log.error("external broker refuses subscription", topics=refused)

    def _on_disconnect(
        self, _: MqttClient, __: object, ___: DisconnectFlags, reason: ReasonCode, ____: Properties | None
    ) -> None:
        with self._lock:
            self._connection += 1
        self.unready = "the external broker is away"
        log.info("external broker disconnected", reason=str(reason))

    def _on_message(self, _: MqttClient, __: object, message: MQTTMessage) -> None:
        try:
            topic = str(message.topic)
        except UnicodeDecodeError as error:
            topic = error.object.decode("utf-8", "backslashreplace")
        self._received(Inbound(self._connection, message.mid, message.qos, topic, bytes(message.payload)))
