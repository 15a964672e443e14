"""What the roles of one process share: the connection, the records, and the tasks that they start."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import structlog
from nats.aio.client import Client

from fabwafer.records import Records, RecordsUnavailableError, SchemaError
from fabwafer.service.backoff import Backoff
from fabwafer_bridge.champion import ChampionProbe
from fabwafer_bridge.consumer import Consumer
from fabwafer_bridge.disk_guard import DiskGuard
from fabwafer_bridge.drawings import Drawings
from fabwafer_bridge.ended_tests import EndedTests
from fabwafer_bridge.inference import ModelServer
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.settings import BridgeSettings
from fabwafer_bridge.streams import DURABLES, ConsumerName
from fabwafer_bridge.trial import Trial

log = structlog.get_logger()


class Runtime:
    """What the roles of one process share.

    Args:
        settings: What the operator set.
        client: The connection to the bus.
        stack: Closes what is opened here.

    Attributes:
        settings: The same.
        client: The same.
        js: The bus's JetStream.
        publisher: Stores messages in streams.
        write_lock: Held by one writer of the records at a time.
        alerts_raised: Set when there are new alerts.
        tasks: What the roles started.
        pullers: Through which they take messages.
        consumers: What works on them.
        guard: Watches the disk, where the records are on this machine and the intake runs.
        champion: Whether the champion answers, where a role needs it.
        ended_tests: Smoke tests of which nothing is recorded any more.
    """

    def __init__(self, settings: BridgeSettings, client: Client, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.client = client
        self.js = client.jetstream(timeout=5)
        self.publisher = Publisher(client)
        self.write_lock = asyncio.Lock()
        self.alerts_raised = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []
        self.pullers: list[Puller] = []
        self.consumers: list[Consumer[Any]] = []
        self.guard: DiskGuard | None = None
        self.champion: ChampionProbe | None = None
        self.ended_tests = EndedTests()
        self._stack = stack
        self._records: Records | None = None
        self._trial: Trial | None = None
        self._drawings: Drawings | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start endless work."""
        self.tasks.append(asyncio.create_task(work))

    def consume(self, consumer: Consumer[Any], *, at_once: int = 1) -> None:
        """Start a consumer, which works on `at_once` batches side by side."""
        self.consumers.append(consumer)
        for _ in range(at_once):
            self.start(consumer.run())

    async def pull(self, consumer: ConsumerName, *, window: int) -> Puller:
        """Start to pull a consumer's messages; at most `window` of them wait here."""
        durable = DURABLES[consumer]
        puller = Puller(self.client, durable.stream, durable.name, window=window)
        await puller.start()
        self.pullers.append(puller)
        return puller

    async def records(self) -> Records:
        """Open the records, waiting for the database and for `fabwafer migrate`."""
        if self._records is None:
            self._records = self._stack.enter_context(Records(self.settings.records_url))
            await _until_they_fit(self._records)
        return self._records

    def trial(self) -> Trial | None:
        """Follow which version is on trial, where the candidate's address is known.

        The records are not waited for: images must not wait for a database that only knows who is on trial.
        """
        if self._trial is None and self.settings.candidate_url:
            self._trial = Trial(self._stack.enter_context(Records(self.settings.records_url)))
            self.start(self._trial.follow())
        return self._trial

    async def drawings(self) -> Drawings:
        """Follow what is stated about the colours of drawings.

        The records are waited for: without them an image of a camera whose colours are stated would be read wrong.
        """
        if self._drawings is None:
            drawings, backoff = Drawings(await self.records()), Backoff()
            while self._drawings is None:
                try:
                    await drawings.look()
                except RecordsUnavailableError as error:
                    log.info("database not there yet", error=str(error)[:300])
                    await backoff.wait()
                else:
                    self._drawings = drawings
            self.start(drawings.follow())
        return self._drawings

    async def http(self) -> aiohttp.ClientSession:
        """Open an HTTP session of a role's own, so that a slow server fills no other's connections."""
        return await self._stack.enter_async_context(ModelServer.session())


async def _until_they_fit(records: Records) -> None:
    backoff = Backoff()
    while True:
        try:
            await asyncio.to_thread(records.check)
        except SchemaError as error:
            log.info("waiting for `fabwafer migrate`", error=str(error))
        except Exception as error:
            log.info("database not there yet", error=str(error)[:300])
        else:
            return
        await backoff.wait()
