"""Shadow: copies of images to the candidate on trial, and its predictions to the records alone."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import aiohttp
import structlog

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages.headers import MESSAGE_ID
from fabwafer.messages.topics import subject_of_shadow_prediction
from fabwafer_bridge.consumer import Refused
from fabwafer_bridge.inference import PROBE, Answer, ModelServer, ModelServerError
from fabwafer_bridge.jobs import Job, JobConsumer, Stated, predicted
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.streams import ConsumerName
from fabwafer_bridge.trial import Trial

log = structlog.get_logger()


class Candidate:
    """The server of whatever version is on trial.

    Args:
        session: The HTTP session.
        url: Where it takes V2 requests, `{version}` standing for the version.
        trial: Knows which version is on trial, if one is.
        key_file: TorchServe's key file; None where it asks for no token.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, trial: Trial, key_file: Path | None) -> None:
        self._session, self._url, self._trial, self._key_file = session, url, trial, key_file

    async def classify(self, images: Sequence[bytes], colours: Sequence[StatedColours | None] = ()) -> list[Answer]:
        """Ask for the class of each image, as `ModelServer.classify` does.

        Raises:
            ModelServerError: There were no answers, another version gave them, or no version is on trial.
        """
        version = self._trial.candidate
        if version is None:
            raise ModelServerError("no version is on trial")
        answers = await self._server(version).classify(images, colours)
        if answers[0].model != version:
            raise ModelServerError(f"expected answers of {version}, which is on trial, got those of {answers[0].model}")
        return answers

    async def healthy(self) -> bool:
        """Return whether the version on trial answers at all, and no other in its place."""
        try:
            return bool(await self.classify([PROBE]))
        except ModelServerError:
            return False

    def _server(self, version: str) -> ModelServer:
        return ModelServer(self._session, self._url.replace("{version}", quote(version, safe="")), self._key_file)


class Shadow(JobConsumer):
    """Asks the candidate about the images copied for it.

    While it does not answer they wait, and the stream deletes the oldest. When the trial ends they are dropped, and so
    is an image that it fails on alone while it answers others: a trial makes no dead letters.

    Args:
        puller: Messages of SHADOW_IMAGES.
        publisher: Stores its predictions.
        server: The candidate's.
        trial: Knows which version is on trial, if one is.
        stated: Returns what is stated about the colours of an image.
    """

    def __init__(self, puller: Puller, publisher: Publisher, server: Candidate, trial: Trial, stated: Stated) -> None:
        super().__init__(ConsumerName.SHADOW, puller, publisher, server, stated)
        self._trial = trial

    def wanted(self) -> bool:
        """Return whether a version is on trial."""
        return self._trial.candidate is not None

    async def refuse(self, refused: Sequence[Refused]) -> None:
        """Drop what is no image; classify writes no such thing, but others could."""
        for one in refused:
            log.warning("dropped", subject=one.message.subject, reason=one.reason[:300])
        self.count(Result.DROPPED, len(refused))

    async def give_up(self, job: Job, reason: str) -> None:
        """Drop an image."""
        log.info("dropped", imgid=job.image.imgid, reason=reason)
        self.count(Result.DROPPED)

    async def store(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        """Store the candidate's predictions; an image that it cannot read, but the champion could, has none."""
        made = [(job, predicted(job.image, answer)) for job, answer in zip(jobs, answers, strict=True) if answer.label]
        await self._publisher.store(
            [
                Outgoing(
                    subject_of_shadow_prediction(prediction.fab, prediction.camera, prediction.imgid),
                    prediction.to_json(),
                    {MESSAGE_ID: f"{prediction.model}:{job.message_id}", **job.receipt.headers},
                )
                for job, prediction in made
            ]
        )
        self.count(Result.PASSED, len(made))
        self.count(Result.DROPPED, len(jobs) - len(made))
