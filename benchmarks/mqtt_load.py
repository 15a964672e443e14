"""A light MQTT 3.1.1 publisher: the load must not take the processor from what is measured.

Only what a benchmark needs of the protocol (OASIS MQTT 3.1.1): CONNECT, PUBLISH with QoS 1, and reading PUBACKs.
"""

import asyncio
import struct
from collections.abc import Callable
from urllib.parse import urlsplit


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, digit = divmod(size, 128)
        out.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


class Connection:
    """One camera's connection.

    Args:
        in_flight: Messages without a PUBACK at a time.
    """

    def __init__(self, in_flight: int) -> None:
        self._room = asyncio.Semaphore(in_flight)
        self._next = 0
        self.acknowledged = 0

    async def open(self, url: str, user: str, password: str, client_id: str) -> None:
        """Connect and sign in."""
        address = urlsplit(url)
        self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port)
        body = _text("MQTT") + b"\x04\xc2" + struct.pack(">H", 120) + _text(client_id) + _text(user) + _text(password)
        self._writer.write(b"\x10" + _length(len(body)) + body)
        answer = await self._reader.readexactly(4)
        if answer[3] != 0:
            raise ConnectionError(f"the listener refuses {user}: CONNACK {answer[3]}")
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            head = await self._reader.readexactly(2)
            await self._reader.readexactly(head[1])
            if head[0] >> 4 == 4:
                self.acknowledged += 1
                self._room.release()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1; wait only while too many are without a PUBACK."""
        await self._room.acquire()
        self._next = self._next % 65535 + 1
        body = _text(topic) + struct.pack(">H", self._next) + payload
        self._writer.write(b"\x32" + _length(len(body)) + body)

    def close(self) -> None:
        """End the connection."""
        self._task.cancel()
        self._writer.close()


async def flood(
    connections: list[Connection],
    message: Callable[[int, int], tuple[str, bytes]],
    stop: asyncio.Event,
    room: asyncio.Semaphore | None = None,
) -> None:
    """Publish on all connections as fast as PUBACKs come.

    Args:
        connections: Each publishes on its own.
        message: Makes the n-th message of a connection: topic and payload.
        stop: Ends it.
        room: Taken for each message, and given back by whoever saw what came of it; bounds what is under way.
    """

    async def one(index: int, connection: Connection) -> None:
        number = 0
        while not stop.is_set():
            if room is not None:
                await room.acquire()
            await connection.publish(*message(index, number))
            number += 1

    await asyncio.gather(*(one(index, connection) for index, connection in enumerate(connections)))


async def steady(
    connections: list[Connection],
    message: Callable[[int, int], tuple[str, bytes]],
    rate: float,
    seconds: float,
    sent: Callable[[int, int], None],
) -> int:
    """Publish at a rate, taking the connections in turn.

    Args:
        connections: Taken in turn.
        message: Makes the n-th message of a connection.
        rate: Messages a second, over all connections.
        seconds: For how long.
        sent: Told of each message right before it goes.

    Returns:
        How many were sent.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    total = int(rate * seconds)
    for count in range(total):
        wait = begin + count / rate - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        number, index = divmod(count, len(connections))
        topic, payload = message(index, number)
        sent(index, number)
        await connections[index].publish(topic, payload)
    return total
