"""`fabwafer migrate`, as a set-up runs it beside a database that is just starting."""

import asyncio

from sqlalchemy.engine import make_url

from fabwafer.records import Records
from fabwafer_local.ports import free_ports
from fabwafer_local.supervisor import fabwafer_command
from tests.support.postgres import fresh_database


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy what comes until it ends."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def run_migrate(*arguments: str) -> asyncio.subprocess.Process:
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        *fabwafer_command("migrate", *arguments), stderr=asyncio.subprocess.PIPE
    )


async def test_it_waits_for_a_database_that_does_not_answer_yet(postgres_server: str) -> None:
    with fresh_database(postgres_server) as database:
        await migrate_when_it_answers(database)


async def migrate_when_it_answers(database: str) -> None:
    """Start the command before anything listens on the port that leads to the database."""
    target = make_url(database)
    (port,) = free_ports(1)
    url = target.set(port=port).render_as_string(hide_password=False)
    process = await run_migrate("--wait", "--database-url", url)
    assert process.stderr is not None
    first = await asyncio.wait_for(process.stderr.readline(), 60)
    assert first.startswith(b"waiting: "), first

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        database_reader, database_writer = await asyncio.open_connection(target.host, target.port)
        await asyncio.gather(forward(reader, database_writer), forward(database_reader, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", port):
        await asyncio.wait_for(process.wait(), 120)
    assert process.returncode == 0, await process.stderr.read()
    with Records(database) as records:
        records.check()


async def test_without_waiting_it_says_that_the_database_does_not_answer() -> None:
    (port,) = free_ports(1)
    process = await run_migrate("--database-url", f"postgresql://nobody@127.0.0.1:{port}/none")
    _, complaint = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert f"127.0.0.1:{port}" in complaint.decode() or "does not answer" in complaint.decode(), complaint
