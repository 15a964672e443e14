"""Shadow: copies of images to the candidate on trial, and what it says of them to the records, and to nobody else."""

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import quote

import aiohttp
import structlog
from nats.aio.msg import Msg
from pydantic import ValidationError

from fabwafer_bridge import metrics, streams
from fabwafer_bridge.classify import (
    BATCH,
    BATCH_BYTES,
    FAILURES_ALONE,
    FAILURES_TOGETHER,
    LONGEST_PAUSE,
    Job,
    in_pixels,
    predicted,
    read_job,
)
from fabwafer_bridge.inference import Answer, ModelServer, ModelServerError
from fabwafer_bridge.intake import MESSAGE_ID
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.trial import Trial

log = structlog.get_logger()


class Candidate:
    """The server of whatever version is on trial.

    Args:
        session: The HTTP session.
        url: Where it takes V2 requests, `{version}` standing for the version.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def classify(self, version: str, encoded: Sequence[str]) -> list[Answer]:
        """Asks a version for the class of each image, as `ModelServer.classify` does.

        Raises:
            ModelServerError: There were no answers, or another version gave them.
        """
        answers = await self._server(version).classify(encoded)
        if answers[0].model != version:
            raise ModelServerError(f"expected answers of {version}, which is on trial, got those of {answers[0].model}")
        return answers

    async def healthy(self, version: str) -> bool:
        """Tells whether a version answers at all."""
        return await self._server(version).healthy()

    def _server(self, version: str) -> ModelServer:
        return ModelServer(self._session, self._url.replace("{version}", quote(version, safe="")))


class Shadow:
    """Asks the candidate about the images copied for it.

    While it does not answer they wait, and the stream lets the oldest go. When the trial ends they are dropped, and so
    is an image that it fails on alone while it is well: a trial makes no dead letters.

    Args:
        puller: Messages of SHADOW_IMAGES.
        publisher: Stores what it says.
        server: The candidate's.
        trial: Tells which version is on trial, if one is.
    """

    def __init__(self, puller: Puller, publisher: Publisher, server: Candidate, trial: Trial) -> None:
        self._puller, self._publisher = puller, publisher
        self._server, self._trial = server, trial

    async def run(self) -> None:
        """Works on what the stream holds; does not return."""
        while True:
            batch = await self._puller.batch(BATCH, BATCH_BYTES)
            async with self._puller.kept(batch):
                for several in in_pixels(_read(batch)):
                    if not await self._answered(several, FAILURES_TOGETHER):
                        for job in several:
                            if not await self._answered([job], FAILURES_ALONE):
                                log.warning("the candidate never answers an image", imgid=job.image.imgid)
                                metrics.MESSAGES.labels(streams.SHADOW, "dropped").inc()

    async def _answered(self, jobs: Sequence[Job], tries: int) -> bool:
        """Tries to have images answered; with no trial any more there is nothing left to try."""
        for _ in range(tries):
            version = self._trial.candidate
            if version is None:
                metrics.MESSAGES.labels(streams.SHADOW, "dropped").inc(len(jobs))
                return True
            started = time.perf_counter()
            try:
                answers = await self._server.classify(version, [job.image.encoded for job in jobs])
            except ModelServerError as error:
                log.warning("the candidate failed", images=len(jobs), version=version, reason=str(error))
                metrics.MESSAGES.labels(streams.SHADOW, "retried").inc(len(jobs))
                await self._until_healthy(version)
            else:
                metrics.INFERENCE_SECONDS.labels(version).observe(time.perf_counter() - started)
                await self._store(jobs, answers)
                return True
        return False

    async def _until_healthy(self, version: str) -> None:
        pause = 0.1
        while self._trial.candidate == version and not await self._server.healthy(version):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _store(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        """Stores what the candidate says; what it cannot read the champion could, and nothing is said of it."""
        said = [(job, predicted(job.image, answer)) for job, answer in zip(jobs, answers, strict=True) if answer.label]
        await self._publisher.store(
            [
                Outgoing(
                    streams.subject_of_shadow_prediction(prediction.fab, prediction.camera, prediction.imgid),
                    prediction.to_json(),
                    {MESSAGE_ID: f"{prediction.model}:{job.message_id}", **job.receipt},
                )
                for job, prediction in said
            ]
        )
        metrics.MESSAGES.labels(streams.SHADOW, "passed").inc(len(said))
        metrics.MESSAGES.labels(streams.SHADOW, "dropped").inc(len(jobs) - len(said))


def _read(batch: Sequence[Msg]) -> list[Job]:
    jobs = []
    for message in batch:
        try:
            jobs.append(read_job(message, streams.SHADOW))
        except ValidationError as error:  # classify writes no such thing, but others could
            log.warning("no image", subject=message.subject, errors=error.error_count())
    return jobs
