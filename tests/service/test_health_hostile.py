"""The HTTP endpoints stand what anybody who reaches the port may send, and answer the next one."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from fabwafer.service.health import HealthServer

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
HOSTILE = {
    "10,000 headers": GET + b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + b"\r\n",
    "a header without end": GET + b"X: " + b"y" * 1_000_000,
    "rubbish in chunks": GET + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nrubbish\r\n",
    "a chunk of a petabyte": GET + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n" + b"x" * 1_000_000,
    "two lengths": GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "1,000 requests at once": (GET + b"\r\n") * 1_000,
    "no HTTP": bytes(range(256)) * 1_000,
}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HealthServer(lambda: None)
    yield int((await server.start("127.0.0.1", 0)).rpartition(":")[2])
    await server.stop()


async def answer(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answered = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answered


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_sent_stops_nobody_else_and_fills_no_log(
    port: int, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    assert (await answer(port)).endswith(b"ok\n")
    writer.close()
    assert sum(len(record.getMessage()) + len(str(record.exc_info)) for record in caplog.records) < 2_000


async def test_readers_that_do_not_read_and_requests_that_never_end_stop_nobody_else(port: int) -> None:
    writers = []
    for number in range(400):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((GET + b"\r\n") * 50 if number % 2 else b"GET /hea")
        writers.append(writer)
    assert (await answer(port)).endswith(b"ok\n")
    for writer in writers:
        writer.close()


async def test_a_fault_of_our_own_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> str | None:
        raise RuntimeError("a fault of our own")

    server = HealthServer(fails)
    port = int((await server.start("127.0.0.1", 0)).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 500 " in await reader.read()
    writer.close()
    await server.stop()
    assert any(record.exc_info and record.levelno >= logging.ERROR for record in caplog.records)
