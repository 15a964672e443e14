"""The classifier: names the defect pattern on wafer maps with ONNX Runtime, for server, edge and command line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fabwafer.defects import NOT_A_WAFER
from fabwafer.maps.counts import MapCounts
from fabwafer.maps.grid import OUTSIDE, ReadMap, bounding_box, count
from fabwafer.maps.image_file import BadImageError
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.scaling import CHANNELS, INPUT_SIZE, scale
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.maps.wafermap import read
from fabwafer.messages.inference import ReviewReason
from fabwafer.models.card import ModelCard, ModelRefusedError, Variant, read_card, read_checked, read_verified
from fabwafer.models.likeness import Likeness
from fabwafer.models.smoke_set import smoke_set

OUTPUTS: Final = ("logits", "embedding", "activations")
"""The outputs of a model file: logits [n, classes], embedding [n, d], class activation maps [n, classes, h, w]."""

PATTERNS: Final = "patterns"
"""A further output of models that tell several patterns on a wafer apart: a logit of each, [n, classes]."""

_LARGEST_PASS: Final = 64
"""Largest number of maps in one pass of the network; more would only take memory."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The result for one image.

    Attributes:
        label: The class, `not-a-wafer`, or empty when the image could not be read.
        probability: Of the class, calibrated, 0..1; 0 where there is no class.
        probabilities: Of all classes in the card's order, float32 [classes]; zeros where there is no class.
        defect: Whether the class names a defect.
        wafer: Whether the image is a wafer map.
        review: Whether a person should look.
        review_reason: Why: `unsure` (the probability is below the class's threshold), `unlike` (the map is unlike all
            that the model was trained on), `colours` (they do not tell which dies passed and which failed),
            `not-a-wafer`; empty where nobody need look, or the image cannot be read.
        error: Empty, or one sentence on why the image could not be read, is no wafer map, or has such colours.
        embedding: The network's description of the map, float32 [d]; zeros where there is no class.
        patterns: Each pattern that the wafer shows, with its probability, the most probable first: several on one of
            mixed patterns. Empty where it shows none; None where the model does not tell them apart.
        map: Dies and failed regions of the map, None where there is none.
        heatmap: The class activation map of the class over the die grid, float32 [rows, columns] in the logit's unit
            (positive: in favour of the class), 0 outside the wafer; None unless asked for.
    """

    label: str
    probability: float
    probabilities: NDArray[np.float32]
    defect: bool
    wafer: bool
    review: bool
    review_reason: ReviewReason
    error: str
    embedding: NDArray[np.float32]
    patterns: dict[str, float] | None
    map: MapCounts | None
    heatmap: NDArray[np.float32] | None


class Classifier:
    """A model, loaded and checked against its card.

    Args:
        directory: The model's folder.
        variant: `int8`, or `float32`, which runs on a GPU where ONNX Runtime has one.
        threads: CPU threads of one pass.

    Raises:
        ModelRefusedError: The model is not the one its card describes, does not fit this code, or has no finite answer
            for a map of the smoke set.
    """

    def __init__(self, directory: Path, variant: Variant = "int8", threads: int = 1) -> None:
        self.card = read_card(directory)
        self.variant = variant
        content = read_verified(directory, self.card, variant)
        if (self.card.input.size, self.card.input.channels) != (INPUT_SIZE, CHANNELS):
            raise ModelRefusedError(
                f"the model {self.card.name} {self.card.version} reads {self.card.input.channels} planes of "
                f"{self.card.input.size} cells a side, this fabwafer makes {CHANNELS} of {INPUT_SIZE}"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=_providers(variant))
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise ModelRefusedError(f"ONNX Runtime cannot load {self.card.files[variant].name}: {error}") from None
        found = [(output.name, output.shape) for output in self._session.get_outputs()]
        self._outputs = [*OUTPUTS, *([PATTERNS] if self.card.patterns is not None else [])]
        if [name for name, _ in found] != self._outputs or found[0][1][1] != len(self.card.classes):
            raise ModelRefusedError(
                f"expected the outputs {', '.join(self._outputs)} for {len(self.card.classes)} classes, found "
                f"{', '.join(f'{name} {shape}' for name, shape in found)}"
            )
        self._input = self._session.get_inputs()[0].name
        self._thresholds = [self.card.thresholds[name] for name in self.card.classes]
        self._likeness = _likeness(directory, self.card)
        self._check_finite(smoke_set())

    def classify(
        self, images: Sequence[bytes], colours: Sequence[StatedColours | None] = (), *, heatmap: bool = False
    ) -> list[Classification]:
        """Return a classification for each image file (PNG or JPEG), in order. A bad one never fails the others.

        Args:
            images: The content of each file.
            colours: What is stated about the colours of each, as many as images; or nothing.
            heatmap: Whether to return the class activation maps.
        """
        answers: dict[int, Classification] = {}
        maps: dict[int, ReadMap] = {}
        for row, (image, stated) in enumerate(zip(images, colours or [None] * len(images), strict=True)):
            try:
                maps[row] = read(image, stated)
            except NotAWaferMapError as error:
                answers[row] = self._without_class(NOT_A_WAFER, str(error))
            except BadImageError as error:
                answers[row] = self._without_class("", str(error))
            except Exception as error:  # a bug in decoding one image must not fail its neighbours
                answers[row] = self._without_class("", f"could not be read: {type(error).__name__}: {error}")
        classified = self.classify_grids([one.grid for one in maps.values()], heatmap=heatmap)
        for (row, one), answer in zip(maps.items(), classified, strict=True):
            answers[row] = (
                replace(answer, review=True, review_reason="colours", error=one.doubt) if one.doubt else answer
            )
        return [answers[row] for row in range(len(images))]

    def classify_grids(self, grids: Sequence[NDArray[np.uint8]], *, heatmap: bool = False) -> list[Classification]:
        """Return a classification for each die grid, in order.

        Args:
            grids: uint8 [rows, columns] with OUTSIDE, PASSED and FAILED; they may differ in size.
            heatmap: Whether to return the class activation maps.
        """
        answers: list[Classification] = []
        for start in range(0, len(grids), _LARGEST_PASS):
            part = grids[start : start + _LARGEST_PASS]
            inputs = np.stack([scale(grid) for grid in part])
            outputs = dict(zip(self._outputs, self._session.run(self._outputs, {self._input: inputs}), strict=True))
            probabilities = self._calibrated(outputs["logits"])
            unlike = self._unlike(outputs["embedding"])
            for row, grid in enumerate(part):
                best = int(probabilities[row].argmax())
                probability = float(probabilities[row, best])
                unsure = probability < self._thresholds[best]
                reason: ReviewReason = "unlike" if unlike[row] else "unsure" if unsure else ""
                answers.append(
                    Classification(
                        label=self.card.classes[best],
                        probability=probability,
                        probabilities=probabilities[row],
                        defect=self.card.is_defect(self.card.classes[best]),
                        wafer=True,
                        review=bool(reason),
                        review_reason=reason,
                        error="",
                        embedding=outputs["embedding"][row],
                        patterns=self._patterns(outputs[PATTERNS][row]) if PATTERNS in outputs else None,
                        map=count(grid),
                        heatmap=_over_dies(outputs["activations"][row, best], grid) if heatmap else None,
                    )
                )
        return answers

    def _check_finite(self, grids: Sequence[NDArray[np.uint8]]) -> None:
        inputs = np.stack([scale(grid) for grid in grids])
        outputs = dict(zip(self._outputs, self._session.run(self._outputs, {self._input: inputs}), strict=True))
        for name, values in outputs.items():
            finite = np.isfinite(values).reshape(len(grids), -1).all(axis=1)
            if not finite.all():
                raise ModelRefusedError(
                    f"the model {self.card.name} {self.card.version} must not serve: expected finite {name} of its "
                    f"{self.variant} file for the {len(grids)} maps of the smoke set, {(~finite).sum()} have others"
                )

    def _calibrated(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = logits / self.card.temperature
        exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities.astype(np.float32)

    def _unlike(self, embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self._likeness is None or self.card.unlike_distance is None:
            return np.zeros(len(embeddings), dtype=bool)
        far: NDArray[np.bool_] = self._likeness.distances(embeddings) > self.card.unlike_distance
        return far

    def _patterns(self, logits: NDArray[np.float32]) -> dict[str, float]:
        thresholds = self.card.patterns or {}
        probabilities = dict(zip(self.card.classes, (1 / (1 + np.exp(-logits))).tolist(), strict=True))
        shown = [
            name for name in self.card.classes if self.card.is_defect(name) and probabilities[name] >= thresholds[name]
        ]
        return {name: probabilities[name] for name in sorted(shown, key=probabilities.__getitem__, reverse=True)}

    def _without_class(self, label: str, error: str) -> Classification:
        return Classification(
            label=label,
            probability=0.0,
            probabilities=np.zeros(len(self.card.classes), np.float32),
            defect=False,
            wafer=False,
            review=True,
            review_reason="not-a-wafer" if label else "",
            error=error,
            embedding=np.zeros(self.card.embedding_size, np.float32),
            patterns=None,
            map=None,
            heatmap=None,
        )


def _likeness(directory: Path, card: ModelCard) -> Likeness | None:
    if card.likeness is None:
        return None
    try:
        found = Likeness.read(read_checked(directory, card.likeness))
    except ValueError as error:
        raise ModelRefusedError(f"the model file {directory / card.likeness.name}: {error}") from None
    size = card.embedding_size
    if found.centres.shape != (len(card.classes), size):
        raise ModelRefusedError(
            f"{card.likeness.name}: expected {len(card.classes)} classes of {size} numbers, found {found.centres.shape}"
        )
    if found.whitening.shape != (size, size):
        raise ModelRefusedError(
            f"{card.likeness.name}: expected a whitening of {size} x {size} numbers, found {found.whitening.shape}"
        )
    if not (np.isfinite(found.whitening).all() and np.isfinite(found.centres).all()):
        raise ModelRefusedError(f"{card.likeness.name}: expected finite numbers, found others: nothing would be unlike")
    return found


def _providers(variant: Variant) -> list[str]:
    """Return ONNX Runtime's providers: CUDA for the float model where it is built in; int8 runs best on the CPU."""
    available = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if variant == "float32" else []
    return [name for name in wanted if name in available] + ["CPUExecutionProvider"]


def _over_dies(activation: NDArray[np.float32], grid: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a class activation map [h, w] interpolated linearly over the wafer's bounding box in the die grid."""
    inside = grid != OUTSIDE
    out = np.zeros(grid.shape, np.float32)
    box = bounding_box(inside)
    if box is None:
        return out
    height, width = inside[box].shape
    out[box] = _interpolation(height, activation.shape[0]) @ activation @ _interpolation(width, activation.shape[1]).T
    out[~inside] = 0
    return out


def _interpolation(dies: int, cells: int) -> NDArray[np.float32]:
    """Return the weight of each of `cells` cells at each of `dies` dies along one axis, float32 [dies, cells]."""
    positions = np.clip((np.arange(dies) + 0.5) * cells / dies - 0.5, 0, cells - 1)
    weights = np.zeros((dies, cells), np.float32)
    for die, position in enumerate(positions):
        lower = min(math.floor(position), cells - 2) if cells > 1 else 0
        weights[die, lower] = 1 - (position - lower)
        if cells > 1:
            weights[die, lower + 1] = position - lower
    return weights
