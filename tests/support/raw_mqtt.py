"""An MQTT 3.1.1 client that sends anything, including what libraries refuse to send."""

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Final

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9
PINGRESP: Final = 13

_ANSWER_SECONDS: Final = 10


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True)
class Packet:
    """A packet of the server; `body` is its first byte and what follows the length."""

    kind: int
    body: bytes


def text(value: str | bytes) -> bytes:
    """Encode a string for MQTT: its length and its bytes."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    """Encode a packet from its first byte and what follows the length."""
    length, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        length += bytes([low | (0x80 if left else 0)])
        if not left:
            return bytes([first]) + length + body


class RawMqtt:
    """A connection; `connack` is the server's return code, None where it closed the connection."""

    def __init__(
        self,
        port: int,
        user: str = "",
        password: str = "",
        *,
        client_id: str = "raw",
        clean: bool = True,
        will: Will | None = None,
        level: int = 4,
        acknowledges: bool = True,
    ) -> None:
        self._acknowledges = acknowledges
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(_ANSWER_SECONDS)
        self._packet_id = 0
        self.received: list[tuple[str, bytes]] = []
        flags = (0x02 if clean else 0) | (0x80 if user else 0) | (0x40 if password else 0)
        body = text(client_id)
        if will is not None:
            flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
            body += text(will.topic) + text(will.payload)
        body += (text(user) if user else b"") + (text(password) if password else b"")
        self._send(packet(0x10, text("MQTT") + bytes([level, flags]) + struct.pack("!H", 60) + body))
        answer = self._read()
        self.connack = answer.body[2] if answer is not None and answer.kind == CONNACK else None

    def _send(self, data: bytes) -> None:
        # A closed connection is seen when the answer is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def _read(self) -> Packet | None:
        """Return the next packet, or None when the server has closed the connection."""
        try:
            first = self._exactly(1)
            length = shift = 0
            while True:
                byte = self._exactly(1)[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
            return Packet(first[0] >> 4, first + self._exactly(length) if length else first)
        except (ConnectionError, EOFError):
            return None

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _await(self, kind: int) -> Packet | None:
        """Return the next packet of a kind; messages before it are added to `received`."""
        while (received := self._read()) is not None and received.kind != kind:
            if received.kind == PUBLISH:
                self._keep(received.body)
        return received

    def _keep(self, body: bytes) -> None:
        qos = body[0] >> 1 & 3
        (length,) = struct.unpack("!H", body[1:3])
        topic, rest = body[3 : 3 + length].decode(), body[3 + length :]
        if qos:
            if self._acknowledges:
                self._send(packet(0x40, rest[:2]))
            rest = rest[2:]
        self.received.append((topic, rest))

    def publish(self, topic: str | bytes, payload: bytes = b"x", *, qos: int = 1, retain: bool = False) -> bool:
        """Publish, and wait for the PUBACK of QoS 1; return False when the server closed the connection."""
        self._packet_id = self._packet_id % 65535 + 1
        body = text(topic) + (struct.pack("!H", self._packet_id) if qos else b"") + payload
        self._send(packet(0x30 | qos << 1 | retain, body))
        return self._await(PUBACK) is not None if qos else self.alive()

    def subscribe(self, topic_filter: str, qos: int = 0) -> bool:
        """Subscribe; return False when the server refused, or closed the connection."""
        self._send(packet(0x82, struct.pack("!H", 1) + text(topic_filter) + bytes([qos])))
        answer = self._await(SUBACK)
        return answer is not None and answer.body[3] < 0x80

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._send(data)

    def alive(self) -> bool:
        """Return whether the server answers a ping; all that it sent before is received by then."""
        self._send(packet(0xC0, b""))
        return self._await(PINGRESP) is not None

    def drop(self) -> None:
        """Close without a DISCONNECT, so that the server publishes the will."""
        self._socket.close()

    def close(self) -> None:
        """Disconnect in order."""
        self._send(packet(0xE0, b""))
        self._socket.close()
