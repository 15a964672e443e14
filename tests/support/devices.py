"""A device in the field: a plain MQTT client that publishes and listens."""

import ssl
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


class Device:
    """One MQTT connection with a device's credentials."""

    def __init__(
        self, url: str, user: str, password: str, client_id: str = "", *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = urlsplit(url)
        self._connected = threading.Event()
        self.received: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
        self.client.username_pw_set(user, password)
        if tls is not None:
            self.client.tls_set_context(tls)
        self.client.on_connect = lambda *_: self._connected.set()
        self.client.on_message = lambda _client, _data, message: self.received.append(
            (message.topic, bytes(message.payload))
        )

    def __enter__(self) -> Self:
        self.client.connect(self._address.hostname or "", self._address.port or 0)
        self.client.loop_start()
        assert self._connected.wait(30), "no CONNACK"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def publish(self, topic: str, payload: bytes | str, qos: int = 1) -> bool:
        """Publish, and return whether the PUBACK was received (with QoS 0: whether it was sent)."""
        sent = self.client.publish(topic, payload, qos=qos)
        sent.wait_for_publish(timeout=30)
        return sent.is_published()

    def subscribe(self, topic: str) -> None:
        """Subscribe, and return after the SUBACK."""
        done = threading.Event()
        self.client.on_subscribe = lambda *_: done.set()
        self.client.subscribe(topic, qos=0)
        assert done.wait(30), "no SUBACK"
