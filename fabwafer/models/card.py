"""The model card: what a model is, what it reads, how good it is, and the digests of its files."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fabwafer.errors import FabwaferError

CARD_NAME = "card.json"
"""The card's file name in a model's folder."""

SUPPORTED_SCALING = frozenset({1})
"""Versions of `fabwafer.maps.wafermap.scale` that this code can feed a model with."""

Variant = Literal["int8", "float32"]


class ModelRefusedError(FabwaferError):
    """A model that must not be loaded. Its text is one sentence saying what was expected and what came."""


class _Part(BaseModel):
    """A part of the card: written strictly, so that a mistyped field is noticed where it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Part):
    """What the network reads: a square of `size` by `size` with `channels` planes, made by one version of scaling."""

    size: int = Field(gt=0)
    channels: int = Field(gt=0)
    scaling_version: int


class ModelFile(_Part):
    """A file of the model, by its name in the model's folder and the SHA-256 of its bytes."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TrainingData(_Part):
    """What the model was trained on: a name, a digest of the maps and labels, and how many of each class."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    counts: dict[str, int]


class ModelCard(_Part):
    """The card of one version of a model.

    Attributes:
        classes: The class names in the order of the network's outputs.
        files: What serves, by variant.
        weights: What training goes on from; serving never reads it.
        temperature: The logits are divided by it before the softmax, which makes the probabilities calibrated.
        thresholds: For each class, the probability below which a prediction of it goes to review.
        review_error_rate: The error rate that the thresholds were chosen for.
        metrics: Held-out figures by the names that `fabwafer evaluate --json` uses, and how they were measured.
    """

    name: str
    version: str = Field(min_length=1)
    created: str
    description: str = ""
    classes: list[str] = Field(min_length=2)
    input: InputSpec
    embedding_size: int = Field(gt=0)
    files: dict[Variant, ModelFile]
    weights: ModelFile | None = None
    temperature: float = Field(gt=0)
    thresholds: dict[str, float]
    review_error_rate: float = Field(ge=0, le=1)
    metrics: dict[str, Any] = {}
    training_data: TrainingData
    training: dict[str, Any] = {}
    limits: list[str] = []
    notice: str = ""
    citations: list[str] = []

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelCard":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must differ from each other")
        if set(self.thresholds) != set(self.classes):
            raise ValueError("thresholds must name exactly the classes")
        return self

    @property
    def digest(self) -> str:
        """One SHA-256 (hexadecimal) for the model: over the card's canonical JSON, which holds its files' digests."""
        canonical = json.dumps(
            self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()


def read_card(directory: Path) -> ModelCard:
    """Reads a model's card.

    Args:
        directory: The model's folder.

    Raises:
        ModelRefusedError: There is no readable card, or it asks for a scaling that this code does not have.
    """
    path = directory / CARD_NAME
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelRefusedError(f"expected a model card at {path}, found none ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ModelRefusedError(f"the model card {path} is not valid at {where}: {first['msg']}") from None
    if card.input.scaling_version not in SUPPORTED_SCALING:
        known = ", ".join(str(version) for version in sorted(SUPPORTED_SCALING))
        raise ModelRefusedError(
            f"the model {card.name} {card.version} wants maps scaled by version {card.input.scaling_version}, "
            f"this fabwafer scales by version {known}"
        )
    return card


def write_card(directory: Path, card: ModelCard) -> None:
    """Writes the card into the model's folder, replacing an earlier one in a single step."""
    path = directory / CARD_NAME
    draft = path.with_suffix(".json.new")
    draft.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def describe_file(path: Path) -> ModelFile:
    """Returns a file's entry for the card."""
    return ModelFile(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def read_verified(directory: Path, card: ModelCard, variant: Variant) -> bytes:
    """Reads one of the model's files and checks it against the card.

    The bytes are returned, so that what was checked is what is loaded.

    Raises:
        ModelRefusedError: The card has no such file, it is missing, or its digest is not the card's.
    """
    entry = card.files.get(variant)
    if entry is None:
        raise ModelRefusedError(f"the model {card.name} {card.version} has no {variant} file")
    return read_checked(directory, entry)


def read_checked(directory: Path, entry: ModelFile) -> bytes:
    """Reads a file and checks it against its entry.

    Raises:
        ModelRefusedError: It is missing, or its digest is not the entry's.
    """
    path = directory / entry.name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelRefusedError(f"expected the model file {path}, could not read it ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise ModelRefusedError(f"the model file {path} should have SHA-256 {entry.sha256}, it has {found}")
    return content


def verify(directory: Path, card: ModelCard) -> None:
    """Checks every file that the card names.

    Raises:
        ModelRefusedError: A file is missing or is not the one that the card was written for.
    """
    for entry in (*card.files.values(), *((card.weights,) if card.weights else ())):
        read_checked(directory, entry)
