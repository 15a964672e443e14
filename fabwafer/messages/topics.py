"""Topics and subjects: the devices' MQTT topics, and the NATS subjects of the streams."""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from fabwafer.messages.refusals import MessageRefusedError, shown

Kind: TypeAlias = Literal["img", "prediction", "alert"]
Source: TypeAlias = Literal["device", "cluster"]

MQTT_PREFIX: Final = "$MQTT.msgs."
"""NATS stores an MQTT message under this prefix and the subject of its topic."""

IMAGE_TOPICS: Final = "fabwafer.*.*.img.*"
PREDICTION_TOPICS: Final = "fabwafer.*.*.prediction.*"
ALERT_TOPICS: Final = "fabwafer.*.*.alert.*"

IMAGES: Final = "fabwafer-images.>"
PREDICTIONS: Final = "fabwafer-predictions.>"
SHADOW_IMAGES: Final = "fabwafer-shadow.img.>"
SHADOW_PREDICTIONS: Final = "fabwafer-shadow.prediction.>"
DEAD_LETTERS: Final = "fabwafer-dead.>"

SMOKE_TEST_FAB: Final = "helm-test"
"""The fab of `fabwafer smoke-test`, whose cameras come and go with each run: nothing of it alerts, is counted, or stays
in the records. No other fab may be called so."""

NAME_RULE: Final = "1 to 64 letters, digits, '_' or '-'"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KINDS: Final[tuple[Kind, ...]] = ("img", "prediction", "alert")
_IN_STREAM: Final[dict[Kind, re.Pattern[str]]] = {
    "img": re.compile(r"fabwafer-(?:images|shadow\.img)\.([^.]+)\.([^.]+)\.([^.]+)"),
    "prediction": re.compile(r"fabwafer-(?:predictions\.[^.]+|shadow\.prediction)\.([^.]+)\.([^.]+)\.([^.]+)"),
}


def is_name(value: object) -> bool:
    """Return whether a value can be the name of a fab, a camera or an image."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Topic:
    """Who sent what: the parts of `fabwafer/<fab>/<camera>/<kind>/<imgid>`."""

    fab: str
    camera: str
    kind: str
    imgid: str

    @classmethod
    def from_subject(cls, subject: str) -> Self:
        """Read a NATS subject `fabwafer.<fab>.<camera>.<kind>.<imgid>`.

        Raises:
            MessageRefusedError: The subject has another shape, or a name has a character that names must not have.
        """
        parts = subject.split(".")
        if len(parts) != 5 or parts[0] != "fabwafer" or parts[3] not in _KINDS:
            raise MessageRefusedError(
                f"expected the topic fabwafer/<fab>/<camera>/img|prediction/<imgid>, got {shown(subject)}", "topic"
            )
        _, fab, camera, kind, imgid = parts
        for field, value in (("fab", fab), ("camera", camera), ("imgid", imgid)):
            if not is_name(value):
                raise MessageRefusedError(f"{field} in the topic: expected {NAME_RULE}, got {shown(value)}", "name")
        return cls(fab, camera, kind, imgid)

    @property
    def subject(self) -> str:
        """The NATS subject."""
        return f"fabwafer.{self.fab}.{self.camera}.{self.kind}.{self.imgid}"

    @property
    def topic(self) -> str:
        """The MQTT topic."""
        return self.subject.replace(".", "/")


def subject_of_image(fab: str, camera: str, imgid: str) -> str:
    """Return the subject of an image in IMAGES."""
    return f"fabwafer-images.{fab}.{camera}.{imgid}"


def subject_of_prediction(source: Source, fab: str, camera: str, imgid: str) -> str:
    """Return the subject of a prediction in PREDICTIONS."""
    return f"fabwafer-predictions.{source}.{fab}.{camera}.{imgid}"


def subject_of_shadow_image(fab: str, camera: str, imgid: str) -> str:
    """Return the subject of an image's copy for the candidate in SHADOW_IMAGES."""
    return f"fabwafer-shadow.img.{fab}.{camera}.{imgid}"


def subject_of_shadow_prediction(fab: str, camera: str, imgid: str) -> str:
    """Return the subject of a candidate's prediction in SHADOW_PREDICTIONS."""
    return f"fabwafer-shadow.prediction.{fab}.{camera}.{imgid}"


def subject_of_dead_letter(consumer: str) -> str:
    """Return the subject in DEAD of what a consumer refused."""
    return f"fabwafer-dead.{consumer}"


def sender_subject(subject: str) -> str:
    """Return the subject that a stream's message was first published on, for people who know their topics.

    Args:
        subject: A subject of any stream; one of no known shape is returned as it is.
    """
    if subject.startswith(MQTT_PREFIX):
        return subject.removeprefix(MQTT_PREFIX)
    for kind, pattern in _IN_STREAM.items():
        if match := pattern.fullmatch(subject):
            return Topic(match[1], match[2], kind, match[3]).subject
    return subject
