"""The messages that devices, bridge and listeners exchange: written strictly, read kindly."""

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fabwafer.defects import canonical_name
from fabwafer.errors import FabwaferError
from fabwafer.maps.counts import MapCounts

Kind = Literal["img", "prediction", "alert"]
Source = Literal["device", "cluster"]

UNKNOWN_MODEL: Final = "unknown"
"""The model of a prediction whose sender names none; never NULL, since it is a part of the prediction's key."""

MILLISECONDS_FROM: Final = 1e11
"""A timestamp below this is in seconds: as milliseconds it would be March 1973, as seconds the year 5138."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME_RULE: Final = "1 to 64 letters, digits, '_' or '-'"


class MessageRefusedError(FabwaferError):
    """A message that can never be accepted. The text says what was expected and what came.

    Args:
        message: The sentence.
        code: Which of a few kinds it is, to count by: topic, name, json, field, mismatch or base64.
    """

    def __init__(self, message: str, code: str = "field") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Topic:
    """Who sent what: the parts of `fabwafer/<fab>/<camera>/<kind>/<imgid>`."""

    fab: str
    camera: str
    kind: str
    imgid: str

    @classmethod
    def from_subject(cls, subject: str) -> Self:
        """Reads a NATS subject `fabwafer.<fab>.<camera>.<kind>.<imgid>`.

        Raises:
            MessageRefusedError: The subject has another shape, or a name holds what a name must not.
        """
        parts = subject.split(".")
        if len(parts) != 5 or parts[0] != "fabwafer" or parts[3] not in ("img", "prediction", "alert"):
            raise MessageRefusedError(
                f"expected the topic fabwafer/<fab>/<camera>/img|prediction/<imgid>, got {_shown(subject)}", "topic"
            )
        _, fab, camera, kind, imgid = parts
        for field, value in (("fab", fab), ("camera", camera), ("imgid", imgid)):
            _checked_name(value, f"{field} in the topic")
        return cls(fab, camera, kind, imgid)

    @property
    def subject(self) -> str:
        """The NATS subject."""
        return f"fabwafer.{self.fab}.{self.camera}.{self.kind}.{self.imgid}"

    @property
    def topic(self) -> str:
        """The MQTT topic."""
        return self.subject.replace(".", "/")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _checked_name(value: object, what: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise MessageRefusedError(f"{what}: expected {_NAME_RULE}, got {_shown(value)}", "name")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"expected {_NAME_RULE}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("expected a number, or a number in a string")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("expected a number, or a number in a string") from None
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _milliseconds(value: object) -> int:
    """Devices send milliseconds, or seconds with or without a fraction, as a number or in a string."""
    number = _number(value)
    if number < 0 or number >= 1e14:
        raise ValueError("expected seconds or milliseconds since 1970")
    if number < MILLISECONDS_FROM:
        return round(number * 1000)
    return int(value) if isinstance(value, int) else round(number)


def _fraction(value: object) -> float:
    """Devices send 0..1, or percent when it is above 1, as a number or in a string."""
    number = _number(value)
    if not 0 <= number <= 100:
        raise ValueError("expected 0 to 1, or percent up to 100")
    return number / 100 if number > 1 else number


def _class_name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 64:
        raise ValueError("expected the name of a class, at most 64 characters")
    return canonical_name(value)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("expected a text")
    return str(value)


def _model_name(value: object) -> str:
    return UNKNOWN_MODEL if value is None or value == "" else _text(value)


M = TypeVar("M", bound="_Message")

Name = Annotated[str, BeforeValidator(_name)]
Milliseconds = Annotated[int, BeforeValidator(_milliseconds)]
Fraction = Annotated[float, BeforeValidator(_fraction)]
ClassName = Annotated[str, BeforeValidator(_class_name)]
ModelName = Annotated[str, BeforeValidator(_model_name), Field(max_length=128)]
Text = Annotated[str, BeforeValidator(_text), Field(max_length=256)]


class _Message(BaseModel):
    """What every message bears. Unknown fields are kept and carried on."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    imgid: Name
    timestamp: Milliseconds
    fab: Name
    camera: Name
    lot: Text | None = None
    slot: Text | None = None
    product: Text | None = None
    tool: Text | None = None
    step: Text | None = None
    notch: Text | None = None

    def topic(self, kind: Kind) -> Topic:
        """The topic that this message belongs on."""
        return Topic(self.fab, self.camera, kind, self.imgid)

    def to_json(self) -> bytes:
        """The message as it goes over the wire: fields without a value are left out."""
        return self.model_dump_json(exclude_none=True, by_alias=True).encode()


CONTEXT_FIELDS: Final = ("lot", "slot", "product", "tool", "step", "notch")
"""The optional fields of every message: kept, searchable, carried from the image to its prediction and alert."""


class Image(_Message):
    """An image from a camera; `encoded` is the base64 text of the image file, as it came."""

    encoded: str = Field(alias="bytes")

    def file(self) -> bytes:
        """The image file.

        Raises:
            MessageRefusedError: The text is not base64.
        """
        return decoded_base64(self.encoded)

    @classmethod
    def of_file(cls, data: bytes, *, imgid: str, timestamp: int, fab: str, camera: str, **more: Any) -> Self:
        """Makes the message for an image file."""
        return cls.model_validate(
            {
                "imgid": imgid,
                "timestamp": timestamp,
                "fab": fab,
                "camera": camera,
                "bytes": base64.b64encode(data).decode("ascii"),
                **more,
            }
        )


class Prediction(_Message):
    """What a model said of a wafer. A device's own has neither `wafer` nor `map`."""

    prediction: ClassName
    probability: Fraction
    source: Source = "device"
    model: ModelName = UNKNOWN_MODEL
    probabilities: dict[str, float] | None = None
    wafer: bool | None = None
    review: bool | None = None
    map: MapCounts | None = None
    embedding: list[float] | None = None


class Alert(Prediction):
    """A prediction that names a defect with enough probability; `id` stays the same when it is sent again."""

    id: str
    threshold: float
    cause: str | None = None
    url: str | None = None


def decoded_base64(text: str) -> bytes:
    """Decodes base64 strictly; white space, which some encoders break lines with, is allowed.

    Raises:
        MessageRefusedError: The text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as first:
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise MessageRefusedError(
                f"field 'bytes': expected base64 of an image file, got {first}", "base64"
            ) from None


def read_image(topic: Topic, payload: bytes) -> Image:
    """Reads an image message that came on a topic.

    Raises:
        MessageRefusedError: It is not such a message; the text names the field.
    """
    return _read(Image, topic, payload)


def read_device_prediction(topic: Topic, payload: bytes) -> Prediction:
    """Reads a prediction that a device made; whatever the body says of `source`, it is the device's.

    Raises:
        MessageRefusedError: It is not such a message; the text names the field.
    """
    prediction = _read(Prediction, topic, payload)
    # These are only the cluster's to say: a device that claims them could silence or raise what a person sees.
    return prediction.model_copy(update={"source": "device", "wafer": None, "review": None})


def _read(kind: type[M], topic: Topic, payload: bytes) -> M:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MessageRefusedError(f"expected JSON, got {_shown(payload[:60])} ({error})", "json") from None
    if not isinstance(body, dict):
        raise MessageRefusedError(f"expected a JSON object, got {_shown(body)}", "json")
    try:
        message = kind.model_validate(body)
    except ValidationError as error:
        raise MessageRefusedError("; ".join(_sentence(detail) for detail in error.errors())) from None
    for field in ("fab", "camera"):
        if getattr(message, field) != getattr(topic, field):
            raise MessageRefusedError(
                f"{field} in the topic is {getattr(topic, field)!r}, in the body {getattr(message, field)!r}: "
                "they must agree, since the topic is what the sender's credentials were checked for",
                "mismatch",
            )
    return message


def _sentence(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"field {field!r} is missing"
    reason = detail["msg"].removeprefix("Value error, ")
    return f"field {field!r}: {reason}, got {_shown(detail['input'])}"
