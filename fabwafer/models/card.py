"""The model card: what a model is, its input, its metrics, and the digests of its files."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fabwafer.defects import NONE, canonical_name, is_defect
from fabwafer.errors import FabwaferError
from fabwafer.service.files import replace_file

CARD_NAME = "card.json"
"""The card's file name in a model's folder."""

SUPPORTED_SCALING = frozenset({1})
"""Versions of `fabwafer.maps.scaling.scale` that this code can prepare a model's input with."""

Variant = Literal["int8", "float32"]
ClassName = Annotated[str, AfterValidator(canonical_name)]
"""Known names in any case get their usual spelling, as in messages."""


class ModelRefusedError(FabwaferError):
    """A model that must not be loaded. The text says what was expected and what was found."""


class _Part(BaseModel):
    """A part of the card. Unknown fields are refused, so that a mistyped one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputSpec(_Part):
    """The network's input: `channels` planes of `size` by `size`, made by one version of scaling."""

    size: int = Field(gt=0)
    channels: int = Field(gt=0)
    scaling_version: int


class ModelFile(_Part):
    """A file of the model: its name in the model's folder, and the SHA-256 of its content (hexadecimal)."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TrainingData(_Part):
    """The training data: a name, a SHA-256 of the maps and labels, and the number of maps of each class."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    counts: dict[ClassName, int]


class ModelCard(_Part):
    """The card of one version of a model.

    Attributes:
        classes: The class names in the order of the network's outputs.
        good: The class of wafers without a defect, where none is called `none`.
        files: The network for serving, by variant.
        weights: The weights that retraining starts from; serving never reads them.
        training_maps: The digests of the maps that this version and those before it were trained on; None where that
            is not known. Serving never reads them.
        temperature: The logits are divided by it before the softmax, which calibrates the probabilities.
        thresholds: For each class, the probability below which a prediction of it goes to review.
        patterns: For each class, the probability from which the wafer is said to show it, beside or without others;
            None where the network does not tell several patterns apart.
        likeness: What the embeddings of the training maps look like; see `fabwafer.models.likeness`.
        unlike_distance: The distance to the nearest class beyond which a map is unlike all of them.
        review_error_rate: The error rate that the thresholds were chosen for.
        metrics: Figures on held-out maps, named as in `fabwafer evaluate --json`, and how they were measured.
    """

    name: str
    version: str = Field(min_length=1)
    created: str
    description: str = ""
    classes: list[ClassName] = Field(min_length=2)
    good: ClassName | None = None
    input: InputSpec
    embedding_size: int = Field(gt=0)
    files: dict[Variant, ModelFile]
    weights: ModelFile | None = None
    likeness: ModelFile | None = None
    unlike_distance: float | None = Field(default=None, gt=0)
    patterns: dict[ClassName, float] | None = None
    training_maps: ModelFile | None = None
    temperature: float = Field(gt=0)
    thresholds: dict[ClassName, float]
    review_error_rate: float = Field(ge=0, le=1)
    metrics: dict[str, Any] = {}
    training_data: TrainingData
    training: dict[str, Any] = {}
    limits: list[str] = []
    notice: str = ""
    citations: list[str] = []

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelCard":
        if len({name.casefold() for name in self.classes}) != len(self.classes):
            raise ValueError("classes must differ from each other in more than the case")
        if self.good is not None and (self.good not in self.classes or NONE in self.classes):
            raise ValueError(f"good must be one of the classes, and is only for classes without {NONE}")
        if set(self.thresholds) != set(self.classes):
            raise ValueError("thresholds must name exactly the classes")
        if self.patterns is not None and set(self.patterns) != set(self.classes):
            raise ValueError("patterns must name exactly the classes")
        if (self.likeness is None) != (self.unlike_distance is None):
            raise ValueError("likeness and unlike_distance come together")
        return self

    @property
    def good_class(self) -> str:
        """The class of wafers without a defect; without such a class `none`, which it never answers."""
        return self.good or NONE

    def is_defect(self, name: str) -> bool:
        """Tell whether one of the model's classes names a defect."""
        return is_defect(name, self.good_class)

    @property
    def digest(self) -> str:
        """The model's SHA-256 (hexadecimal), over the card's canonical JSON, which holds the digests of its files."""
        canonical = json.dumps(
            self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def entries(self) -> list[ModelFile]:
        """The files of all variants, and the others that there are."""
        others = (self.weights, self.likeness, self.training_maps)
        return [*self.files.values(), *(file for file in others if file is not None)]


def read_card(directory: Path) -> ModelCard:
    """Return the card in a model's folder.

    Args:
        directory: The model's folder.

    Raises:
        ModelRefusedError: There is no readable card, or it names a scaling version that this code does not have.
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
    """Write the card into the model's folder, replacing an earlier one in one step."""
    replace_file(directory / CARD_NAME, card.model_dump_json(indent=2) + "\n", mode=0o644)


def describe_file(path: Path) -> ModelFile:
    """Return a file's entry for the card."""
    return ModelFile(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def read_verified(directory: Path, card: ModelCard, variant: Variant) -> bytes:
    """Return the content of one of the model's files, checked against the card.

    The caller loads these bytes, not the file, which may change after the check.

    Raises:
        ModelRefusedError: The card has no such file, it is missing, or its digest is not the card's.
    """
    entry = card.files.get(variant)
    if entry is None:
        raise ModelRefusedError(f"the model {card.name} {card.version} has no {variant} file")
    return read_checked(directory, entry)


def read_checked(directory: Path, entry: ModelFile) -> bytes:
    """Return a file's content, checked against its entry.

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
    """Check every file that the card names.

    Raises:
        ModelRefusedError: A file is missing or is not the one that the card was written for.
    """
    for entry in card.entries:
        read_checked(directory, entry)
