"""A backup of a system under load, restored elsewhere after that one is gone: nothing is lost or there twice."""

import asyncio
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from fabwafer.messages.bodies import read_stored_alert
from fabwafer.records import Filter
from fabwafer.records.dump import dump_file, read_rows
from fabwafer_bridge.backup_folder import BackupFolder, Manifest
from tests.chaos import ledger
from tests.chaos.system import System, running
from tests.support.nats_servers import NatsServer
from tests.support.postgres import fresh_database
from tests.support.running import ModelServer, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

STEADY = 150.0
"""Images a second; what two cores take with everything on them."""
IMAGES = 900


async def run(command: str, system: System, *words: str | Path) -> str:
    """Runs a command of the bridge as a pod of the system would."""
    env = {
        name: system.bridge.environment[name]
        for name in ("FABWAFER_NATS_URL", "FABWAFER_DATABASE_URL", "FABWAFER_INFERENCE_URL")
    }
    program = f"from fabwafer_bridge.commands.{command} import app; app()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *map(str, words)),
        env=os.environ | env | {"FABWAFER_MODEL_STORE": str(system.bridge.log.parent / "model-store")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@asynccontextmanager
async def alerts_of(system: System) -> AsyncIterator[Counter[str]]:
    """How often each alert is sent on the bus, by its id."""
    sent: Counter[str] = Counter()

    async def take(message: Msg) -> None:
        sent[read_stored_alert(message.data).id] += 1

    client = await nats.connect(system.servers[0].url)
    await client.subscribe("fabwafer.*.*.alert.*", cb=take)
    await client.flush()
    yield sent
    await client.close()


def pending(folder: Path, manifest: Manifest) -> dict[str, bool]:
    """Whether each alert of a backup is still to be sent."""
    rows = read_rows(dump_file(BackupFolder(folder).records(manifest.run), "alerts"))
    return {row["id"]: row["pending"] for row in rows}


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgres"), ("postgres", "sqlite")])
async def test_what_had_its_puback_before_a_backup_under_load_is_there_once_after_a_restore(
    tmp_path: Path,
    nats_server: NatsServer,
    model_server: ModelServer,
    chance: random.Random,
    postgres_server: str,
    source: str,
    target: str,
) -> None:
    backup = tmp_path / "backup"
    with ExitStack() as stack:
        postgres = stack.enter_context(fresh_database(postgres_server))
        first_url = postgres if source == "postgres" else ""
        async with running(tmp_path, nats_server, model_server, chance, database_url=first_url) as first:
            # An earlier backup into the same folder, so that the later one adds to it.
            await first.fleet.publish(first.fleet.images(60))
            await run("backup", first, backup)
            async with first.under_load(first.fleet.images(IMAGES), rate=STEADY):
                await first.fleet.until(chance.randint(200, 500))
                acknowledged = set(first.fleet.acknowledged)
                await run("backup", first, backup)
            published = first.fleet.published
        nats_server.kill()
        shutil.rmtree(nats_server.directory)
        (tmp_path / "records.db").unlink(missing_ok=True)

        manifest = BackupFolder(backup).checked_manifest()
        with NatsServer(tmp_path / "elsewhere-nats") as server:
            second_url = postgres if target == "postgres" else ""
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            async with (
                running(elsewhere, server, model_server, chance, database_url=second_url) as second,
                alerts_of(second) as sent,
            ):
                print(await run("restore", second, backup))
                await second.settled()
                await asyncio.to_thread(
                    wait_until, lambda: not second.records.count_pending_alerts(), second.bridge.last_words
                )

                ledger.check(acknowledged, second.records.wafers(), whole=False)
                known = {(one.fab, one.camera, one.imgid) for one in second.records.wafers()}
                assert known <= {shot[:3] for shot in published}
                # An alert that was sent before the backup is not sent again; each of the others is sent once.
                in_backup = pending(backup, manifest)
                assert [name for name in sent if in_backup.get(name) is False] == []
                assert {name for name, still in in_backup.items() if still} <= set(sent)
                assert set(sent.values()) <= {1}
                alerting = {name for name, still in in_backup.items() if not still} | set(sent)
                assert second.records.count(Filter(alert=True)) == len(alerting)
                # And it goes on.
                await second.fleet.publish(second.fleet.images(60))
                await second.settled()
                ledger.check(acknowledged | second.fleet.published, second.records.wafers(), whole=False)
