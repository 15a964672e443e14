"""The bodies of the messages that devices, bridge and listeners exchange: written strictly, read kindly."""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, ValidationInfo

from fabwafer.defects import canonical_name, is_defect
from fabwafer.maps.counts import MapCounts
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages.encoding import EncodingError, decoded_base64
from fabwafer.messages.headers import MESSAGE_BYTES
from fabwafer.messages.refusals import MessageRefusedError, shown
from fabwafer.messages.topics import NAME_RULE, Kind, Source, Topic, is_name

UNKNOWN_MODEL: Final = "unknown"
"""The model of a prediction whose sender names none; never NULL, since it is a part of the prediction's key."""

MILLISECONDS_FROM: Final = 1e11
"""A timestamp below this is in seconds: as milliseconds it would be March 1973, as seconds the year 5138."""


LONGEST_TEXT: Final = 256
"""Characters of lot, slot and the like."""

DEEPEST: Final = 32
"""Levels of objects and lists in a field; what reads a message again further on gives up at about 200."""


def _name(value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise ValueError(f"expected {NAME_RULE}")
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


_STORED: Final = {"stored": True}
"""The context of validation for what the bridge has written itself: its times are in milliseconds, however early."""


def _milliseconds(value: object, info: ValidationInfo) -> int:
    """Read a time: devices send milliseconds, or seconds with or without a fraction, as a number or in a string."""
    number = _number(value)
    if number < 0 or number >= 1e14:
        raise ValueError("expected seconds or milliseconds since 1970")
    if number < MILLISECONDS_FROM and info.context != _STORED:
        return round(number * 1000)
    return int(value) if isinstance(value, int) else round(number)


def _fraction(value: object) -> float:
    """Read a probability: devices send 0..1, or percent when it is above 1, as a number or in a string."""
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
Text = Annotated[str, BeforeValidator(_text), Field(max_length=LONGEST_TEXT)]


class _Message(BaseModel):
    """The fields of every message. Unknown fields are kept and carried on."""

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
        """Return the topic that this message belongs on."""
        return Topic(self.fab, self.camera, kind, self.imgid)

    def to_json(self) -> bytes:
        """Return the message as it goes over the wire: fields without a value are left out."""
        return self.model_dump_json(exclude_none=True, by_alias=True).encode()


CONTEXT_FIELDS: Final = ("lot", "slot", "product", "tool", "step", "notch")
"""The optional fields of every message: kept, searchable, carried from the image to its prediction and alert."""


class ImageMetadata(_Message):
    """What an image message says of its image: everything but the image file."""

    colours: StatedColours | None = None

    def to_header(self) -> str:
        """Return it as one line of ASCII JSON, for the header `Fabwafer-Message`.

        Raises:
            MessageRefusedError: It is longer than such a header may be.
        """
        line = self.to_json().decode()
        if not line.isascii():
            line = json.dumps(json.loads(line), separators=(",", ":"))
        if len(line) > MESSAGE_BYTES:
            raise MessageRefusedError(
                f"expected at most {MESSAGE_BYTES} bytes of fields besides 'bytes', got {len(line)}", "fields_too_large"
            )
        return line

    @classmethod
    def from_header(cls, line: str | None) -> Self:
        """Read the header `Fabwafer-Message`.

        Args:
            line: The header's value, None where there is none.

        Raises:
            MessageRefusedError: It is not what `to_header` writes.
        """
        if line is None:
            raise MessageRefusedError("expected an image with the header Fabwafer-Message, got none")
        return _stored(cls, line)


class Image(ImageMetadata):
    """An image message as a device sends it; `encoded` is the image file in base64."""

    encoded: str = Field(alias="bytes")

    @classmethod
    def of_file(cls, data: bytes, *, imgid: str, timestamp: int, fab: str, camera: str, **more: Any) -> Self:
        """Make the message for an image file."""
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


@dataclass(frozen=True, slots=True)
class ReceivedImage:
    """An image message taken apart: what it says of the image, and the image file."""

    metadata: ImageMetadata
    data: bytes


class Prediction(_Message):
    """A model's answer for one image. A device's own has neither `wafer` nor `map`.

    `is_defect` says whether the class names a defect; where it is missing, the class's name decides.
    `review_reason` says why `review` is true (`fabwafer.messages.inference.ReviewReason`), `review_detail` the same in
    a sentence where there is more to say.
    """

    prediction: ClassName
    probability: Fraction
    is_defect: bool | None = None
    source: Source = "device"
    model: ModelName = UNKNOWN_MODEL
    probabilities: dict[str, FiniteFloat] | None = None
    wafer: bool | None = None
    review: bool | None = None
    review_reason: str | None = None
    review_detail: str | None = None
    map: MapCounts | None = None
    embedding: list[FiniteFloat] | None = None

    @property
    def names_defect(self) -> bool:
        """Whether it names a defect on a wafer."""
        if self.wafer is False:
            return False
        return is_defect(self.prediction) if self.is_defect is None else self.is_defect


class Alert(Prediction):
    """A prediction that names a defect with enough probability; `id` stays the same when it is sent again."""

    id: str
    threshold: float
    cause: str | None = None
    url: str | None = None


def read_image(topic: Topic, payload: bytes) -> ReceivedImage:
    """Read an image message that came on a topic: its JSON is parsed and its base64 decoded here, and nowhere else.

    Raises:
        MessageRefusedError: It is not such a message; the text names the field.
        BadImageError: The image file is too large.
    """
    body = _object(payload)
    encoded = body.pop("bytes", None)
    metadata = _checked(ImageMetadata, topic, body)
    if not isinstance(encoded, str):
        raise MessageRefusedError(
            f"field 'bytes': expected base64 of an image file, got {shown(encoded)}"
            if encoded is not None
            else "field 'bytes' is missing"
        )
    try:
        return ReceivedImage(metadata, decoded_base64(encoded))
    except EncodingError as error:
        raise MessageRefusedError(f"field 'bytes': {error}", "base64") from None


def read_device_prediction(topic: Topic, payload: bytes) -> Prediction:
    """Read a prediction that a device made; whatever the body says of `source`, it is the device's.

    Raises:
        MessageRefusedError: It is not such a message; the text names the field.
    """
    return _of_device(_checked(Prediction, topic, _object(payload)))


def device_prediction(fields: dict[str, Any]) -> Prediction:
    """Make a device's prediction of fields that came without a topic, such as a row of a table.

    Raises:
        MessageRefusedError: They are none; the text names the field.
    """
    return _of_device(read_fields(Prediction, fields))


def read_fields(kind: type[M], fields: dict[str, Any]) -> M:
    """Make a message of fields that came without a topic, such as a row of a table.

    Raises:
        MessageRefusedError: They are not such a message; the text names the field.
    """
    _check_readable(fields, ())
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _refused(error) from None


def _of_device(prediction: Prediction) -> Prediction:
    # These are only the cluster's to say: a device that claims them could silence or raise what a person sees.
    return prediction.model_copy(
        update={"source": "device", "wafer": None, "review": None, "review_reason": None, "review_detail": None}
    )


def read_stored_prediction(payload: bytes) -> Prediction:
    """Read a prediction from its stream, where the bridge has written it.

    Raises:
        MessageRefusedError: It is none; the text names the field.
    """
    return _stored(Prediction, payload)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MessageRefusedError(f"expected JSON, got {shown(payload[:60])} ({error})", "json") from None
    if not isinstance(body, dict):
        raise MessageRefusedError(f"expected a JSON object, got {shown(body)}", "json")
    return body


def _check_readable(value: object, path: tuple[str, ...]) -> None:
    """Refuse what Python reads in JSON, but what cannot be written as JSON that every reader takes."""
    field = ".".join(path).encode("utf-8", "backslashreplace").decode()
    if len(path) > DEEPEST:
        raise MessageRefusedError(
            f"field {path[0]!r}: expected at most {DEEPEST} levels of objects and lists, got more"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise MessageRefusedError(f"field {field!r}: expected a finite number, got {value}")
    if isinstance(value, str) and not _is_unicode(value):
        raise MessageRefusedError(f"field {field!r}: expected text, got half of a surrogate pair in {shown(value)}")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not _is_unicode(name):
                raise MessageRefusedError(f"field {shown(name)}: expected text as its name, got half a surrogate pair")
            _check_readable(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_readable(inner, (*path, str(index)))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(kind: type[M], topic: Topic, body: dict[str, Any]) -> M:
    message = read_fields(kind, body)
    for field in ("fab", "camera"):
        if getattr(message, field) != getattr(topic, field):
            raise MessageRefusedError(
                f"{field} in the topic is {getattr(topic, field)!r}, in the body {getattr(message, field)!r}: "
                "they must agree, since the topic is what the sender's credentials were checked for",
                "mismatch",
            )
    return message


def stored_alert(fields: Mapping[str, Any]) -> Alert:
    """Make an alert of fields that the records hold."""
    return Alert.model_validate(fields, context=_STORED)


def read_stored_alert(payload: bytes) -> Alert:
    """Read an alert that the bridge published.

    Raises:
        MessageRefusedError: It is no alert.
    """
    return _stored(Alert, payload)


def _stored(kind: type[M], text: str | bytes) -> M:
    try:
        return kind.model_validate_json(text, context=_STORED)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> MessageRefusedError:
    return MessageRefusedError("; ".join(_sentence(detail) for detail in error.errors()))


def _sentence(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    if not field:
        return f"expected a JSON object: {detail['msg']}, got {shown(detail['input'])}"
    if detail["type"] == "missing":
        return f"field {field!r} is missing"
    reason = detail["msg"].removeprefix("Value error, ")
    return f"field {field!r}: {reason}, got {shown(detail['input'])}"
