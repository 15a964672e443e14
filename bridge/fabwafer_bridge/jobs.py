"""Images on their way through a model server: the job of one image, calls of bounded size, tries and predictions."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from nats.aio.msg import Msg

from fabwafer.defects import NOT_A_WAFER, canonical_name
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages.bodies import CONTEXT_FIELDS, ImageMetadata, Prediction
from fabwafer.messages.headers import MESSAGE, MESSAGE_ID, PIXELS, Receipt
from fabwafer.service.backoff import Backoff
from fabwafer_bridge import metrics
from fabwafer_bridge.consumer import Consumer
from fabwafer_bridge.inference import Answer, ModelServerError
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.streams import ConsumerName

BATCH: Final = 16
BATCH_BYTES: Final = 4 * 1024 * 1024
BATCH_PIXELS: Final = 16_000_000
"""Pixels in one call: decoding 16 million takes seconds, and the call's time is bounded."""
FAILURES_TOGETHER: Final = 3
"""After so many failures of a batch, each of its images goes alone."""
FAILURES_ALONE: Final = 5
"""After so many failures alone, each followed by an answer for another image, an image is given up."""

Stated = Callable[[ImageMetadata], StatedColours | None]
"""Returns what is stated about the colours of an image, None where nothing is."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """An image to be classified.

    Attributes:
        image: Its message without the image file.
        message: The message it came in; its payload is the image file.
        receipt: When the intake received it.
        message_id: The same for every delivery, and for what a device sends again.
        pixels: Of the image.
    """

    image: ImageMetadata
    message: Msg
    receipt: Receipt
    message_id: str
    pixels: int


def read_job(message: Msg) -> Job:
    """Make a job of a message of IMAGES or SHADOW_IMAGES.

    Raises:
        MessageRefusedError: It is no image as the intake writes it.
        ValueError: A header that should be a number is none.
    """
    headers = message.headers or {}
    image = ImageMetadata.from_header(headers.get(MESSAGE))
    return Job(
        image,
        message,
        Receipt.from_headers(headers, image.timestamp),
        message_id=headers.get(MESSAGE_ID) or f"seq-{message.metadata.sequence.stream}",
        pixels=int(headers.get(PIXELS, 0)),
    )


def in_pixels(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Split jobs into calls of at most `BATCH_PIXELS` pixels, or of one image that has more."""
    several: list[Job] = []
    pixels = 0
    for job in jobs:
        if several and pixels + job.pixels > BATCH_PIXELS:
            yield several
            several, pixels = [], 0
        several.append(job)
        pixels += job.pixels
    if several:
        yield several


def predicted(image: ImageMetadata, answer: Answer) -> Prediction:
    """Return the prediction that an answer makes for an image, with the image's time stamp and context."""
    return Prediction.model_construct(
        imgid=image.imgid,
        timestamp=image.timestamp,
        fab=image.fab,
        camera=image.camera,
        prediction=canonical_name(answer.label) if answer.wafer else NOT_A_WAFER,
        probability=answer.probability,
        is_defect=answer.defect if answer.wafer else False,
        source="cluster",
        model=answer.model,
        probabilities=answer.probabilities if answer.wafer else None,
        wafer=answer.wafer,
        review=answer.review,
        review_reason=answer.review_reason or None,
        review_detail=(answer.error or None) if answer.review_reason else None,
        map=answer.map,
        embedding=answer.embedding if answer.wafer else None,
        **{field: value for field in CONTEXT_FIELDS if (value := getattr(image, field)) is not None},
    )


class Server(Protocol):
    """A model server, as far as jobs need it."""

    async def classify(self, images: Sequence[bytes], colours: Sequence[StatedColours | None] = ()) -> list[Answer]:
        """Return an answer for each image file; raises ModelServerError when there are none."""
        ...

    async def healthy(self) -> bool:
        """Return whether the model answers at all."""
        ...


class JobConsumer(Consumer[Job]):
    """A consumer that asks a model server about images. A subclass stores the answers.

    While the server is down nothing more is fetched: a failure counts against an image only when the server answers
    others.

    Args:
        name: Its label in the metrics.
        puller: Messages with an image each.
        publisher: Stores predictions and dead letters.
        server: Is asked.
        stated: Returns what is stated about the colours of an image.
    """

    def __init__(
        self, name: ConsumerName, puller: Puller, publisher: Publisher, server: Server, stated: Stated
    ) -> None:
        super().__init__(name, puller, publisher, most=BATCH, most_bytes=BATCH_BYTES)
        self._stated = stated
        self._server = server
        self._alone = asyncio.Lock()

    @abstractmethod
    async def store(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        """Return when the effect of the answers is stored."""

    @abstractmethod
    async def give_up(self, job: Job, reason: str) -> None:
        """Give up an image that the server fails on while it answers others."""

    def wanted(self) -> bool:
        """Return whether there is a model to ask; without one the images are given up."""
        return True

    def read(self, message: Msg) -> Job:
        """Make a job of a message."""
        return read_job(message)

    async def handle(self, items: Sequence[Job]) -> None:
        """Ask about images together; where that fails again and again, about each alone."""
        for several in in_pixels(items):
            if await self._answered(several, FAILURES_TOGETHER) is not None:
                for job in several:
                    # Through one lock: beside an image that makes the server fail, an innocent one would fail with it.
                    async with self._alone:
                        failure = await self._answered([job], FAILURES_ALONE)
                    if failure is not None:
                        await self.give_up(job, failure)

    async def _answered(self, jobs: Sequence[Job], tries: int) -> str | None:
        """Ask until there are answers, and store them; return why there are none after so many tries."""
        failure = ""
        for _ in range(tries):
            if not self.wanted():
                for job in jobs:
                    await self.give_up(job, "there is no model to ask")
                return None
            started = time.perf_counter()
            try:
                answers = await self._server.classify(
                    [job.message.data for job in jobs], [self._stated(job.image) for job in jobs]
                )
            except ModelServerError as error:
                failure = str(error)
                log.warning("no answers", consumer=self._name, images=len(jobs), reason=failure)
                self.count(Result.RETRIED, len(jobs))
                await self._until_healthy()
            else:
                metrics.INFERENCE_SECONDS.labels(answers[0].model).observe(time.perf_counter() - started)
                await self.store(jobs, answers)
                return None
        return failure

    async def _until_healthy(self) -> None:
        backoff = Backoff()
        while self.wanted() and not await self._server.healthy():
            await backoff.wait()
