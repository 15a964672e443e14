"""The roles of the bridge: each is an entry here, with the function that starts it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fabwafer.messages.bodies import ImageMetadata
from fabwafer.records import ReceivedPrediction, Shot
from fabwafer.records.engine import sqlite_file
from fabwafer_bridge import lag, record, stuck_sessions
from fabwafer_bridge.alert import AlertWorker, wafer_page
from fabwafer_bridge.champion import ChampionProbe
from fabwafer_bridge.classify import Classify
from fabwafer_bridge.disk_guard import DiskGuard
from fabwafer_bridge.inference import ModelServer, infer_url
from fabwafer_bridge.intake import Intake
from fabwafer_bridge.retention import forget
from fabwafer_bridge.runtime import Runtime
from fabwafer_bridge.shadow import Candidate, Shadow
from fabwafer_bridge.streams import ConsumerName
from fabwafer_bridge.webhook import Webhook

AT_ONCE: Final = 2
"""Batches that intake and classify work on side by side: one is under way while the other waits for an answer."""


async def start_intake(runtime: Runtime) -> None:
    """Start the intake."""
    puller = await runtime.pull(ConsumerName.INTAKE, window=1024)
    file = sqlite_file(runtime.settings.records_url)
    if file is not None and file.exists():
        runtime.guard = guard = DiskGuard(runtime.js, file.absolute().parent)
        runtime.start(guard.run())
    intake = Intake(
        runtime.client,
        puller,
        runtime.publisher,
        behind=lambda: lag.waiting_images(runtime.js),
        stopped=lambda: runtime.guard is not None and runtime.guard.stopped is not None,
    )
    runtime.start(stuck_sessions.follow(runtime.js))
    await intake.listen()
    runtime.consume(intake, at_once=AT_ONCE)


async def start_classify(runtime: Runtime) -> None:
    """Start classify, which copies images for the candidate where its address is known."""
    trial = runtime.trial()
    settings = runtime.settings
    server = ModelServer(await runtime.http(), infer_url(settings.inference_url), settings.inference_key_file)
    runtime.champion = ChampionProbe(server)
    runtime.start(runtime.champion.run())
    puller = await runtime.pull(ConsumerName.CLASSIFY, window=256)
    classify = Classify(
        puller, runtime.publisher, server, trial.takes if trial else _no_image, (await runtime.drawings()).stated
    )
    runtime.consume(classify, at_once=AT_ONCE)


def _no_image(_image: ImageMetadata) -> bool:
    return False


async def start_shadow(runtime: Runtime) -> None:
    """Start shadow, where the candidate's address is known."""
    trial, url = runtime.trial(), runtime.settings.candidate_url
    if trial is None or url is None:
        return
    candidate = Candidate(await runtime.http(), url, trial, runtime.settings.inference_key_file)
    puller = await runtime.pull(ConsumerName.SHADOW, window=64)
    # Not among the consumers that make the bridge unready: a trial must not hold production up.
    runtime.start(Shadow(puller, runtime.publisher, candidate, trial, (await runtime.drawings()).stated).run())


async def start_record(runtime: Runtime) -> None:
    """Start the consumers that write the records, and the deletion of what is too old."""
    records = await runtime.records()
    loop = asyncio.get_running_loop()

    def raised() -> None:
        loop.call_soon_threadsafe(runtime.alerts_raised.set)

    ended = runtime.ended_tests
    store_new = record.store_predictions(records, raised)
    publisher, lock = runtime.publisher, runtime.write_lock

    def store_shots(rows: Sequence[Shot]) -> None:
        records.store_shots([row for row in rows if not ended.include(row.image)])

    def store(rows: Sequence[ReceivedPrediction]) -> None:
        store_new([row for row in rows if not ended.include(row.prediction)])

    name = ConsumerName.RECORD_IMAGES
    puller = await runtime.pull(name, window=512)
    runtime.consume(record.RecordConsumer(name, puller, publisher, lock, record.read_shot, store_shots))
    for name, read in (
        (ConsumerName.RECORD_PREDICTIONS, record.read_prediction),
        (ConsumerName.RECORD_SHADOW, record.read_shadow),
    ):
        puller = await runtime.pull(name, window=512)
        runtime.consume(record.RecordConsumer(name, puller, publisher, lock, read, store))
    settings = runtime.settings
    if (days := settings.image_retention_days) is not None:
        runtime.start(forget("images", records.forget_images, days, lock))
    if (days := settings.record_retention_days) is not None:
        runtime.start(forget("wafers", records.forget_wafers, days, lock))


async def start_alert(runtime: Runtime) -> None:
    """Start the alert worker."""
    settings = runtime.settings
    records = await runtime.records()
    webhook = None
    if settings.webhook_url:
        secret = settings.webhook_secret
        webhook = Webhook(
            await runtime.http(), settings.webhook_url, secret.get_secret_value().encode() if secret else None
        )
    page = wafer_page(settings.portal_url)
    worker = AlertWorker(runtime.client, records, runtime.write_lock, runtime.alerts_raised, webhook, page)
    runtime.start(worker.run())


ROLES: Final[dict[str, Callable[[Runtime], Awaitable[None]]]] = {
    "intake": start_intake,
    "classify": start_classify,
    "shadow": start_shadow,
    "record": start_record,
    "alert": start_alert,
}
"""The roles in the order of a wafer's way; they are started in the opposite one."""
