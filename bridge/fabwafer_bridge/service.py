"""The bridge as one process: its consumers side by side, started together and drained together."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from fabwafer.messages.bodies import Image
from fabwafer.records import Records, RecordsUnavailableError, SchemaError
from fabwafer.service.health import HealthServer
from fabwafer.service.process import end
from fabwafer_bridge import lag, record, streams
from fabwafer_bridge.alert import AlertWorker, wafer_page
from fabwafer_bridge.classify import Classify, Takes
from fabwafer_bridge.connection import connect
from fabwafer_bridge.inference import ModelServer, infer_url
from fabwafer_bridge.intake import Intake
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.settings import BridgeSettings, Role
from fabwafer_bridge.shadow import Candidate, Shadow
from fabwafer_bridge.trial import Trial
from fabwafer_bridge.webhook import Webhook

DRAIN_SECONDS: Final = 6.0
"""How long what is being worked on may take to finish after SIGTERM; the rest is delivered to the next process."""
LAG_EVERY: Final = 2.0
RETENTION_EVERY: Final = 3600.0
RETENTION_RETRY: Final = 60.0
"""Seconds after which forgetting images is tried again when the database was away."""
AT_ONCE: Final = 2
"""Batches that each consumer works on side by side: one is under way while the other waits for an answer."""

log = structlog.get_logger()


class Bridge:
    """The bridge's consumers on one connection.

    Args:
        settings: What the operator set.
        roles: Which consumers run in this process.
    """

    def __init__(self, settings: BridgeSettings, roles: Sequence[Role]) -> None:
        self._settings = settings
        self._roles = roles
        self._unready: str | None = "starting"
        self._pullers: list[Puller] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._client: Client | None = None
        self._closed = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Carries messages until `stopping` is set, then finishes what is under way.

        Raises:
            Exception: A consumer failed in a way that it has no answer to; the process should end and be started anew.
        """
        settings = self._settings
        health = HealthServer(self._why_unready)
        address = await health.start(settings.metrics_host, settings.metrics_port)
        log.info("metrics", address=address)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(health.stop)
            client = await connect(
                settings.nats_url, name="fabwafer-bridge", reconnected=self._renew, closed=self._gone
            )
            self._client = client
            stack.push_async_callback(_close, client)
            js = client.jetstream(timeout=5)
            await _laid(js, settings)
            publisher = Publisher(client)
            lock = asyncio.Lock()
            if "alert" in self._roles or "record" in self._roles:
                records = await _opened(settings.database_url)
                stack.callback(records.close)
                session = await stack.enter_async_context(ModelServer.session())
                webhook = None
                if settings.webhook_url:
                    secret = settings.webhook_secret
                    webhook = Webhook(
                        session, settings.webhook_url, secret.get_secret_value().encode() if secret else None
                    )
                worker = AlertWorker(client, records, lock, webhook, wafer_page(settings.portal_url))
                if "alert" in self._roles:
                    self._start(worker.run())
                if "record" in self._roles:
                    await self._start_record(client, publisher, records, worker, lock)
            if "classify" in self._roles or "shadow" in self._roles:
                await self._start_asking(stack, client, publisher)
            if "intake" in self._roles:
                puller = await self._pull(client, streams.MQTT, streams.INTAKE, window=1024)
                intake = Intake(client, puller, publisher, lambda: lag.waiting_images(js))
                await intake.listen()
                for _ in range(AT_ONCE):
                    self._start(intake.run())
            self._start(_lag(js))
            self._unready = None
            log.info("ready", roles=list(self._roles))
            await self._until(stopping)
            self._unready = "stopping"
            await self._drain()

    async def _start_asking(self, stack: contextlib.AsyncExitStack, client: Client, publisher: Publisher) -> None:
        """Starts what asks the model server, and the candidate's where its address is known."""
        settings = self._settings
        on_trial: Takes = _nothing
        if settings.candidate_url:
            # Not opened as the others' are: images must not wait for a database that only knows who is on trial.
            trial = Trial(stack.enter_context(Records(settings.database_url)))
            self._start(trial.follow())
            on_trial = trial.takes
            if "shadow" in self._roles:
                shadows = await self._pull(client, streams.SHADOW_IMAGES, streams.SHADOW, window=64)
                session = await stack.enter_async_context(ModelServer.session())  # a slow candidate fills its own
                self._start(Shadow(shadows, publisher, Candidate(session, settings.candidate_url), trial).run())
        if "classify" in self._roles:
            session = await stack.enter_async_context(ModelServer.session())
            server = ModelServer(session, infer_url(settings.inference_url))
            puller = await self._pull(client, streams.IMAGES, streams.CLASSIFY, window=256)
            classify = Classify(puller, publisher, server.classify, server.healthy, on_trial)
            for _ in range(AT_ONCE):
                self._start(classify.run())

    async def _start_record(
        self, client: Client, publisher: Publisher, records: Records, worker: AlertWorker, lock: asyncio.Lock
    ) -> None:
        loop = asyncio.get_running_loop()

        def raised() -> None:
            loop.call_soon_threadsafe(worker.raised)

        store = record.store_predictions(records, raised)
        images = await self._pull(client, streams.IMAGES, streams.RECORD, window=512)
        predictions = await self._pull(client, streams.PREDICTIONS, streams.RECORD, window=512)
        shadows = await self._pull(client, streams.SHADOW_PREDICTIONS, streams.RECORD, window=512)
        self._start(record.RecordConsumer(images, publisher, lock).run(record.read_shot, records.store_shots))
        self._start(record.RecordConsumer(predictions, publisher, lock).run(record.read_prediction, store))
        self._start(record.RecordConsumer(shadows, publisher, lock).run(record.read_shadow, store))
        if self._settings.image_retention_days is not None:
            self._start(_retention(records, self._settings.image_retention_days, lock))

    async def _pull(self, client: Client, stream: str, durable: str, *, window: int) -> Puller:
        puller = Puller(client, stream, durable, window=window)
        await puller.start()
        self._pullers.append(puller)
        return puller

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _renew(self) -> None:
        for puller in self._pullers:
            await puller.renew()

    async def _gone(self) -> None:
        self._closed.set()

    def _why_unready(self) -> str | None:
        if self._unready is None and self._client is not None and not self._client.is_connected:
            return "the bus is away"
        return self._unready

    async def _until(self, stopping: asyncio.Event) -> None:
        stop = asyncio.create_task(stopping.wait())
        gone = asyncio.create_task(self._closed.wait())
        done, _ = await asyncio.wait([stop, gone, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        gone.cancel()
        for task in done - {stop, gone}:
            task.result()  # a consumer never returns: it raised
        if gone in done:
            raise ConnectionError("the client of the bus has given up; a new process has to begin anew")

    async def _drain(self) -> None:
        """Lets batches under way finish: with nothing more pulled, a consumer that is done waits for ever."""
        await asyncio.gather(*(puller.stop() for puller in self._pullers))
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline and any(puller.busy for puller in self._pullers):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await end(self._tasks)
        log.info("drained")


def _nothing(_image: Image) -> bool:
    """No image goes to a candidate where none is asked."""
    return False


async def _laid(js: JetStreamContext, settings: BridgeSettings) -> None:
    """Makes the streams, waiting for a bus that is still electing its leaders."""
    pause = 0.1
    while True:
        try:
            await streams.ensure_streams(
                js,
                replicas=settings.replicas,
                mqtt_max_bytes=settings.mqtt_max_bytes,
                max_bytes=settings.stream_max_bytes,
            )
        except (NatsError, TimeoutError) as error:
            log.info("streams not there yet", error=repr(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)
        else:
            return


async def _opened(url: str) -> Records:
    """Opens the records, waiting for the database and for whoever migrates it."""
    records = Records(url)
    pause = 0.1
    while True:
        try:
            await asyncio.to_thread(records.check)
        except SchemaError as error:
            log.info("records not there yet", error=str(error))
        except Exception as error:
            log.info("database not there yet", error=str(error)[:300])
        else:
            return records
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)


async def _retention(records: Records, days: int, lock: asyncio.Lock) -> None:
    while True:
        before = int((time.time() - days * 86400) * 1000)
        try:
            async with lock:
                forgotten = await asyncio.to_thread(records.forget_images, before)
        except RecordsUnavailableError as error:  # images wait for it as predictions do, and no process ends over it
            log.warning("nothing forgotten yet", reason=str(error)[:300], pause=RETENTION_RETRY)
            await asyncio.sleep(RETENTION_RETRY)
        else:
            log.info("retention", images=forgotten, days=days)
            await asyncio.sleep(RETENTION_EVERY)


async def _lag(js: JetStreamContext) -> None:
    while True:
        await lag.measure(js)
        await asyncio.sleep(LAG_EVERY)


async def _close(client: Client) -> None:
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await client.flush(timeout=2)
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await client.close()
