"""Classify: images from the stream to the model server, and its predictions back onto the bus."""

import time
from collections.abc import Callable, Sequence

from fabwafer.messages.bodies import ImageMetadata, Prediction
from fabwafer.messages.headers import MESSAGE, MESSAGE_ID, PIXELS, SOURCE
from fabwafer.messages.topics import SMOKE_TEST_FAB, subject_of_prediction, subject_of_shadow_image
from fabwafer_bridge import metrics
from fabwafer_bridge.consumer import Refused
from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.inference import Answer
from fabwafer_bridge.jobs import FAILURES_ALONE, Job, JobConsumer, Server, Stated, predicted
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.publisher import Outgoing, Publisher
from fabwafer_bridge.puller import Puller
from fabwafer_bridge.streams import ConsumerName

Takes = Callable[[ImageMetadata], bool]
"""Returns whether an image goes to the candidate on trial as well."""


class Classify(JobConsumer):
    """Asks the champion's server about images, and publishes its predictions.

    Args:
        puller: Messages of IMAGES.
        publisher: Stores predictions.
        server: The champion's.
        on_trial: Returns which images are copied for the candidate, once they are predicted.
        stated: Returns what is stated about the colours of an image.
    """

    def __init__(self, puller: Puller, publisher: Publisher, server: Server, on_trial: Takes, stated: Stated) -> None:
        super().__init__(ConsumerName.CLASSIFY, puller, publisher, server, stated)
        self._on_trial = on_trial

    async def give_up(self, job: Job, reason: str) -> None:
        """Make a dead letter of an image."""
        sentence = f"the model server failed on it {FAILURES_ALONE} times while it answered others: {reason}"
        await self.refuse([Refused(job.message, sentence, Reason.MODEL_SERVER_FAILED)])

    async def store(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        """Store predictions, publish them for listeners, and copy the candidate's share of the images."""
        metrics.SERVING.answered(answers[0].model, answers[0].digest)
        answered: list[tuple[Job, Prediction, bytes]] = []
        refused: list[Refused] = []
        for job, answer in zip(jobs, answers, strict=True):
            if answer.label:
                prediction = predicted(job.image, answer)
                answered.append((job, prediction, prediction.to_json()))
            else:
                refused.append(Refused(job.message, answer.error, Reason.REFUSED_BY_MODEL))
        if refused:
            await self.refuse(refused)
        await self._publisher.store([_stored(job, prediction, body) for job, prediction, body in answered])
        now = time.time()
        for job, prediction, body in answered:
            subject = prediction.topic("prediction").subject
            await self._publisher.announce(subject, body, {SOURCE: "cluster"})
            if prediction.fab == SMOKE_TEST_FAB:
                continue
            if self._on_trial(job.image):
                await self._copy(job)
            if not prediction.wafer:
                metrics.NOT_A_WAFER.labels(prediction.fab, prediction.camera).inc()
            received = job.receipt.received / 1000
            metrics.END_TO_END_SECONDS.labels(prediction.fab).observe(max(0.0, now - received))
            metrics.CLOCK_SKEW_SECONDS.labels(prediction.fab).set(received - prediction.timestamp / 1000)
        self.count(Result.PASSED, len(answered))

    async def _copy(self, job: Job) -> None:
        """Copy an image for the candidate. It is not waited for: a trial must not hold production up."""
        image = job.image
        await self._publisher.announce(
            subject_of_shadow_image(image.fab, image.camera, image.imgid),
            job.message.data,
            {
                MESSAGE: (job.message.headers or {})[MESSAGE],
                MESSAGE_ID: job.message_id,
                PIXELS: str(job.pixels),
                **job.receipt.headers,
            },
        )


def _stored(job: Job, prediction: Prediction, body: bytes) -> Outgoing:
    return Outgoing(
        subject_of_prediction("cluster", prediction.fab, prediction.camera, prediction.imgid),
        body,
        {MESSAGE_ID: f"{prediction.model}:{job.message_id}", **job.receipt.headers},
    )
