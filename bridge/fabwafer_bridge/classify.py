"""Classify: images from the stream to the model server, and its predictions back onto the bus."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from nats.aio.msg import Msg
from pydantic import ValidationError

from fabwafer.defects import NOT_A_WAFER
from fabwafer.maps.counts import MapCounts
from fabwafer.messages.bodies import CONTEXT_FIELDS, Image, Prediction, Topic
from fabwafer_bridge import dead_letters, metrics, streams
from fabwafer_bridge.inference import Answer, ModelServerError
from fabwafer_bridge.intake import MESSAGE_ID, PIXELS, RECEIVED, SEQUENCE, SOURCE
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.puller import Puller

BATCH: Final = 16
BATCH_BYTES: Final = 4 * 1024 * 1024
BATCH_PIXELS: Final = 16_000_000
"""Pixels in one call: decoding 16 million takes seconds, and the call's time is bounded."""
FAILURES_TOGETHER: Final = 3
"""After so many failures of a batch, each of its images goes alone."""
FAILURES_ALONE: Final = 5
"""An image that failed so often alone, while the server was well otherwise, is a dead letter."""
LONGEST_PAUSE: Final = 2.0

Ask = Callable[[Sequence[str]], Awaitable[list[Answer]]]
Healthy = Callable[[], Awaitable[bool]]
Takes = Callable[[Image], bool]
"""Tells whether an image goes to the candidate on trial as well."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """An image to be classified, and the message it came in."""

    image: Image
    message: Msg
    received: str
    sequence: str
    message_id: str
    pixels: int

    @property
    def receipt(self) -> dict[str, str]:
        """When and as which message the intake received it, as headers."""
        return {RECEIVED: self.received, SEQUENCE: self.sequence}


class Classify:
    """Asks the model server about images, and publishes what it says.

    Args:
        puller: Messages of IMAGES.
        publisher: Stores predictions.
        ask: Calls the model server; raises ModelServerError when nobody answers.
        well: Tells whether the model server answers at all.
        on_trial: Tells which images are copied for the candidate, once they are predicted.
    """

    def __init__(self, puller: Puller, publisher: Publisher, ask: Ask, healthy: Healthy, on_trial: Takes) -> None:
        self._puller = puller
        self._publisher = publisher
        self._ask = ask
        self._healthy = healthy
        self._on_trial = on_trial

    async def run(self) -> None:
        """Classifies what the stream holds. While the model server is down nothing more is fetched."""
        while True:
            batch = await self._puller.batch(BATCH, BATCH_BYTES)
            async with self._puller.kept(batch):
                jobs = []
                for message in batch:
                    try:
                        jobs.append(read_job(message, streams.CLASSIFY))
                    except ValidationError as error:  # the intake writes no such thing, but others could
                        await self._publisher.store([_unreadable(message, error)])
                for several in in_pixels(jobs):
                    await self._work(several)

    async def _work(self, jobs: Sequence[Job]) -> None:
        for _ in range(FAILURES_TOGETHER):
            try:
                answers = await self._asked(jobs)
            except ModelServerError as error:
                log.warning("batch failed", images=len(jobs), reason=str(error))
                metrics.MESSAGES.labels(streams.CLASSIFY, "retried").inc(len(jobs))
                await self._until_healthy()
            else:
                await self._answered(jobs, answers)
                return
        for job in jobs:
            await self._work_alone(job)

    async def _work_alone(self, job: Job) -> None:
        failures = 0
        while True:
            try:
                answers = await self._asked([job])
            except ModelServerError as error:
                # A server that is down says nothing about the image: a failure counts once the server is well again.
                await self._until_healthy()
                failures += 1
                log.warning("image failed alone", imgid=job.image.imgid, failures=failures, reason=str(error))
                if failures >= FAILURES_ALONE:
                    reason = f"the model server failed on it {failures} times while it answered others: {error}"
                    await self._publisher.store([_letter(job, reason, "model_server_failed")])
                    metrics.DEAD_LETTERS.labels("model_server_failed").inc()
                    metrics.MESSAGES.labels(streams.CLASSIFY, "dead").inc()
                    return
            else:
                await self._answered([job], answers)
                return

    async def _asked(self, jobs: Sequence[Job]) -> list[Answer]:
        started = time.perf_counter()
        answers = await self._ask([job.image.encoded for job in jobs])
        version = answers[0].model
        metrics.INFERENCE_SECONDS.labels(version).observe(time.perf_counter() - started)
        metrics.MODEL_INFO.labels(version, answers[0].digest).set(1)
        return answers

    async def _until_healthy(self) -> None:
        pause = 0.1
        while not await self._healthy():
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _answered(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        stored: list[Outgoing] = []
        announced: list[tuple[Job, Prediction, bytes]] = []
        for job, answer in zip(jobs, answers, strict=True):
            if not answer.label:
                stored.append(_letter(job, answer.error, "refused_by_model"))
                metrics.DEAD_LETTERS.labels("refused_by_model").inc()
                metrics.MESSAGES.labels(streams.CLASSIFY, "dead").inc()
                continue
            prediction = predicted(job.image, answer)
            body = prediction.to_json()
            stored.append(
                Outgoing(
                    streams.subject_of_prediction("cluster", prediction.fab, prediction.camera, prediction.imgid),
                    body,
                    {MESSAGE_ID: f"{answer.model}:{job.message_id}", **job.receipt},
                )
            )
            announced.append((job, prediction, body))
            if not answer.wafer:
                metrics.NOT_A_WAFER.labels(prediction.fab, prediction.camera).inc()
        await self._publisher.store(stored)
        now = time.time()
        for job, prediction, body in announced:
            subject = prediction.topic("prediction").subject
            await self._publisher.announce(subject, body, {SOURCE: "cluster"})
            if self._on_trial(job.image):
                await self._copy(job)
        for job in jobs:
            metrics.END_TO_END_SECONDS.labels(job.image.fab).observe(max(0.0, now - int(job.received) / 1000))
            metrics.MESSAGES.labels(streams.CLASSIFY, "passed").inc()
            metrics.CLOCK_SKEW_SECONDS.labels(job.image.fab).set((int(job.received) - job.image.timestamp) / 1000)

    async def _copy(self, job: Job) -> None:
        """Copies an image for the candidate. Nobody waits for it to be stored: a trial must not hold production up."""
        await self._publisher.announce(
            streams.subject_of_shadow_image(job.image.fab, job.image.camera, job.image.imgid),
            job.message.data,
            {MESSAGE_ID: job.message_id, PIXELS: str(job.pixels), **job.receipt},
        )


def in_pixels(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Splits jobs into calls of at most `BATCH_PIXELS` pixels, or of one image that has more."""
    several: list[Job] = []
    for job in jobs:
        if several and sum(one.pixels for one in several) + job.pixels > BATCH_PIXELS:
            yield several
            several = []
        several.append(job)
    if several:
        yield several


def predicted(image: Image, answer: Answer) -> Prediction:
    """Makes the prediction for an image of what the model server said; it bears the image's time stamp and context."""
    return Prediction.model_construct(
        imgid=image.imgid,
        timestamp=image.timestamp,
        fab=image.fab,
        camera=image.camera,
        prediction=answer.label if answer.wafer else NOT_A_WAFER,
        probability=answer.probability,
        source="cluster",
        model=answer.model,
        probabilities=answer.probabilities if answer.wafer else None,
        wafer=answer.wafer,
        review=answer.review,
        map=MapCounts.model_validate(answer.map) if answer.map else None,
        embedding=answer.embedding if answer.wafer else None,
        **{field: value for field in CONTEXT_FIELDS if (value := getattr(image, field)) is not None},
    )


def read_job(message: Msg, consumer: str) -> Job:
    """Makes a job of an image's message.

    Args:
        message: What the intake wrote, or a copy of it.
        consumer: Whose it is; what was delivered before is counted for it.

    Raises:
        ValidationError: It is no image message.
    """
    headers = message.headers or {}
    if message.metadata.num_delivered and message.metadata.num_delivered > 1:
        metrics.REDELIVERIES.labels(consumer).inc()
    image = Image.model_validate_json(message.data)
    return Job(
        image,
        message,
        received=headers.get(RECEIVED, str(image.timestamp)),
        sequence=headers.get(SEQUENCE, "0"),
        message_id=headers.get(MESSAGE_ID, f"seq-{message.metadata.sequence.stream}"),
        pixels=int(headers.get(PIXELS, 0)),
    )


def _letter(job: Job, reason: str, code: str) -> Outgoing:
    topic: Topic = job.image.topic("img")
    return dead_letters.letter(
        streams.CLASSIFY,
        subject=topic.subject,
        origin=job.message.subject,
        payload=job.message.data,
        reason=reason,
        code=code,
        message_id=job.message_id,
        headers=job.receipt,
    )


def _unreadable(message: Msg, error: ValidationError) -> Outgoing:
    return dead_letters.letter(
        streams.CLASSIFY,
        subject=message.subject,
        origin=message.subject,
        payload=message.data,
        reason=f"expected an image message as the intake writes it, got one with {error.error_count()} errors",
        message_id=f"{streams.IMAGES}:{message.metadata.sequence.stream}",
        headers={},
    )
