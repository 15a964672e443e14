"""What the bridge counts and times, for Prometheus. Labels are bounded: an imgid is never one."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from fabwafer_bridge.dead_letters import Reason
from fabwafer_bridge.streams import ConsumerName

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, which nobody needs


class Result(StrEnum):
    """What became of a message."""

    PASSED = "passed"
    """Its effect is stored."""
    RETRIED = "retried"
    """A try failed that says nothing about the message; it is tried again."""
    DEAD = "dead"
    """Refused for ever: a dead letter."""
    DROPPED = "dropped"
    """Given up without a dead letter: a candidate's image, or what came with QoS 0 and found no room."""
    IGNORED = "ignored"
    """The gateway: the cluster's own prediction, which it had sent out itself."""
    RETURNED = "returned"
    """The gateway: sent out to the other broker."""
    NOT_RETURNED = "not_returned"
    """The gateway: the other broker was away for too long."""


RESULTS: Final[Mapping[ConsumerName, Sequence[Result]]] = {
    ConsumerName.INTAKE: (Result.PASSED, Result.RETRIED, Result.DEAD, Result.DROPPED),
    ConsumerName.CLASSIFY: (Result.PASSED, Result.RETRIED, Result.DEAD),
    ConsumerName.SHADOW: (Result.PASSED, Result.RETRIED, Result.DROPPED),
    ConsumerName.RECORD_IMAGES: (Result.PASSED, Result.RETRIED, Result.DEAD),
    ConsumerName.RECORD_PREDICTIONS: (Result.PASSED, Result.RETRIED, Result.DEAD),
    ConsumerName.RECORD_SHADOW: (Result.PASSED, Result.RETRIED, Result.DEAD),
    ConsumerName.ALERT: (Result.PASSED, Result.RETRIED),
    ConsumerName.GATEWAY: (
        Result.PASSED,
        Result.DEAD,
        Result.DROPPED,
        Result.IGNORED,
        Result.RETURNED,
        Result.NOT_RETURNED,
    ),
}
"""Which results each consumer has."""

WITHOUT_STREAM: Final = (ConsumerName.ALERT, ConsumerName.GATEWAY)
"""Consumers of no stream: nothing is delivered to them again."""

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW: Final = (*_FAST, 30, 60, 300, 1800, 7200)
_PROBABILITY: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

PREDICTIONS = Counter(
    "fabwafer_predictions_total", "Predictions stored in the records.", ["fab", "camera", "model", "class"]
)
SHADOW_PREDICTIONS = Counter(
    "fabwafer_shadow_predictions_total", "Predictions of a candidate on trial.", ["model", "class"]
)
PROBABILITY = Histogram(
    "fabwafer_prediction_probability", "Probability of the named class.", ["model", "class"], buckets=_PROBABILITY
)
INFERENCE_SECONDS = Histogram(
    "fabwafer_inference_seconds", "One call of the model server, per batch.", ["model"], buckets=_FAST
)
END_TO_END_SECONDS = Histogram(
    "fabwafer_end_to_end_seconds", "From stored in the stream to prediction published.", ["fab"], buckets=_SLOW
)
CLOCK_SKEW_SECONDS = Gauge(
    "fabwafer_device_clock_skew_seconds", "Time of receipt less a device's own time stamp, newest image.", ["fab"]
)
MESSAGES = Counter("fabwafer_messages_total", "Messages worked on.", ["consumer", "result"])
DEAD_LETTERS = Counter("fabwafer_dead_letters_total", "Messages that became dead letters.", ["reason"])
REDELIVERIES = Counter("fabwafer_redeliveries_total", "Messages that were delivered before.", ["consumer"])
CONSUMER_LAG = Gauge("fabwafer_consumer_lag", "Messages, or pending alerts, that wait for a consumer.", ["consumer"])
STREAM_FILL = Gauge("fabwafer_stream_fill_ratio", "Share of a stream's limit in use.", ["stream"])
OLDEST_UNACKNOWLEDGED = Gauge(
    "fabwafer_oldest_unacknowledged_seconds", "Age of the oldest message a consumer has not acknowledged.", ["consumer"]
)
ALERTS = Counter("fabwafer_alerts_total", "Alerts raised.", ["fab", "class"])
NOT_A_WAFER = Counter("fabwafer_not_a_wafer_total", "Images that show no wafer map.", ["fab", "camera"])
SESSIONS_RELEASED = Counter(
    "fabwafer_sessions_released_total", "MQTT sessions that did not acknowledge, and lost what they held for it."
)
INTAKE_STOPPED = Gauge("fabwafer_intake_stopped", "1 while the disk is too full to take in images.")
MODEL_INFO = Gauge("fabwafer_model_info", "1 for the model version that serves.", ["version", "digest"])

for _reason in Reason:
    DEAD_LETTERS.labels(_reason)


def start_at_zero(consumer: ConsumerName) -> None:
    """Make the series of a consumer that this process runs, so that the first increase is seen as one."""
    for result in RESULTS[consumer]:
        MESSAGES.labels(consumer, result)
    if consumer not in WITHOUT_STREAM:
        REDELIVERIES.labels(consumer)


def forget_camera(fab: str, camera: str) -> None:
    """Remove the series of a camera that was revoked, and the clock skew of its fab, which may have been its own."""
    for metric in (PREDICTIONS, NOT_A_WAFER):
        metric.remove_by_labels({"fab": fab, "camera": camera})
    CLOCK_SKEW_SECONDS.remove_by_labels({"fab": fab})


class ServingModel:
    """The version that answers for production: `model_info` has a series for it, and for no other."""

    def __init__(self) -> None:
        self._known: tuple[str, str] | None = None

    def answered(self, version: str, digest: str) -> None:
        """Take note of who answered."""
        if (version, digest) != self._known:
            MODEL_INFO.clear()
            MODEL_INFO.labels(version, digest).set(1)
            self._known = (version, digest)


SERVING: Final = ServingModel()
