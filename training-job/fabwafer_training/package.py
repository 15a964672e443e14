"""The model's folder of a trained network: calibrated, exported, quantised, measured, with its card."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabwafer.defects import NONE
from fabwafer.maps.scaling import CHANNELS, INPUT_SIZE, SCALING_VERSION
from fabwafer.models.card import InputSpec, ModelCard, TrainingData, describe_file, write_card
from fabwafer.models.classifier import PATTERNS
from fabwafer.models.likeness import LIKENESS_NAME, Likeness
from fabwafer_training.augment import DRAWINGS, as_inputs, draw_natively
from fabwafer_training.calibrate import (
    fit_pattern_thresholds,
    fit_prior,
    fit_temperature,
    fit_thresholds,
    log_prior,
    softmax,
)
from fabwafer_training.dataset import Dataset, numbered
from fabwafer_training.metrics import measure, measure_patterns, natural_weights
from fabwafer_training.mixing import mix
from fabwafer_training.network import WaferNet, parameters
from fabwafer_training.quantise import FLOAT_NAME, INT8_NAME, add_to_logits, export, quantise, run
from fabwafer_training.seen_maps import SeenMaps, digests_of, write_seen_maps
from fabwafer_training.splits import grouped_folds
from fabwafer_training.weights import NAME, write_weights

REVIEW_ERROR_RATE = 0.05
CALIBRATION_MAPS_A_CLASS = 60
UNLIKE_SHARE = 0.01
"""The share of held-out maps, all of known classes, that the distance of unlike maps sends to review."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out maps.

    Attributes:
        inputs: In each drawing times 255, uint8 [n, drawings, channels, size, size].
        targets: Their class numbers, [n].
        groups: Their groups, [n].
        mixed_inputs: Mixed maps made of them times 255, uint8 [m, channels, size, size].
        mixed: Which classes each of those shows, bool [m, classes].
    """

    inputs: NDArray[np.uint8]
    targets: NDArray[np.intp]
    groups: NDArray[np.str_]
    mixed_inputs: NDArray[np.uint8]
    mixed: NDArray[np.bool_]

    @classmethod
    def of(
        cls, data: Dataset, inputs: NDArray[np.uint8], classes: Sequence[str], *, mixed: int, seed: int
    ) -> "HeldOut":
        """Return held-out maps, with mixed ones made of them.

        Args:
            data: The maps.
            inputs: In each drawing times 255, uint8 [n, drawings, channels, size, size].
            classes: The class names.
            mixed: How many mixed maps to make.
            seed: Decides which.
        """
        made = mix(data, classes, mixed, seed)
        return cls(inputs, numbered(data, classes), data.groups, draw_natively(made.grids), made.patterns)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is fitted on held-out maps after training.

    Attributes:
        prior_step: How far the logits are moved towards the class frequencies.
        temperature: What they are divided by.
        thresholds: Of review, by class name.
        patterns: From which probability each pattern is named; None for a network without them.
        unlike_distance: From which distance a map is unlike all classes.
    """

    prior_step: float
    temperature: float
    thresholds: dict[str, float]
    patterns: dict[str, float] | None
    unlike_distance: float


def package(
    network: WaferNet,
    *,
    classes: Sequence[str],
    trained_on: Dataset,
    trained_inputs: NDArray[np.uint8],
    held_out: HeldOut,
    folder: Path,
    about: dict[str, Any],
    training: dict[str, Any],
    prior_step: float | None = None,
    fitted: Fitted | None = None,
    seen_before: SeenMaps | None = frozenset(),
) -> ModelCard:
    """Write the model's files and card.

    Temperature, prior and thresholds are fitted on the held-out maps. The card's figures are measured on the same
    maps in two halves by group: what is fitted on one half is measured on the other.

    Args:
        network: The trained network.
        classes: The class names in the order of the outputs.
        trained_on: The maps it was trained on.
        trained_inputs: Their inputs, uint8 [n, drawings, channels, size, size].
        held_out: Maps it was not trained on.
        folder: Where to write.
        about: The card's `name`, `version`, `description`, `good`, `limits`, `notice` and `citations`.
        training: How it was trained, for the card.
        prior_step: How far to move the logits towards the class frequencies; by default fitted.
        fitted: What was fitted for a network of the same recipe on maps that this one was trained on. Nothing is
            fitted then, and all held-out maps are measured at once.
        seen_before: The maps that the model it was trained on from has seen; None where that is not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained_targets = numbered(trained_on, classes)
    prior = log_prior(np.bincount(trained_targets, minlength=len(classes)).astype(np.float64))
    some = _some_of_each(trained_targets, CALIBRATION_MAPS_A_CLASS)
    calibration = as_inputs(trained_inputs[some, np.arange(len(some)) % len(DRAWINGS)])

    float_path, int8_path = folder / FLOAT_NAME, folder / INT8_NAME
    export(network, float_path)
    quantise(float_path, int8_path, calibration)
    inputs = [as_inputs(held_out.inputs[:, drawing]) for drawing in range(len(DRAWINGS))]
    float_logits = run(float_path, inputs[0], ["logits"])["logits"]
    names = ["logits", "embedding", *([PATTERNS] if network.patterns is not None else [])]
    native = run(int8_path, inputs[0], names)
    logits = [native["logits"], *(run(int8_path, part, ["logits"])["logits"] for part in inputs[1:])]

    likeness = _likeness(int8_path, trained_inputs[: len(trained_targets), 0], trained_targets)
    likeness.write(folder / LIKENESS_NAME)
    shown, probabilities = np.eye(len(classes), dtype=bool)[held_out.targets], None
    if network.patterns is not None:
        probabilities = _sigmoid(native[PATTERNS])
        if len(held_out.mixed):
            mixed = _sigmoid(run(int8_path, as_inputs(held_out.mixed_inputs), [PATTERNS])[PATTERNS])
            probabilities, shown = np.concatenate([probabilities, mixed]), np.concatenate([shown, held_out.mixed])

    if fitted is None:
        crossed, crossed_float = _crossed(logits[0], float_logits, held_out, prior, classes, prior_step)
        step = fit_prior(logits[0], held_out.targets, prior, classes) if prior_step is None else prior_step
        final = logits[0] + np.float32(step) * prior
        temperature = fit_temperature(final, held_out.targets)
        distances = likeness.distances(native["embedding"])
        patterns = None if probabilities is None else fit_pattern_thresholds(probabilities, shown)
        fitted = Fitted(
            step,
            temperature,
            fit_thresholds(softmax(final, temperature), held_out.targets, classes, REVIEW_ERROR_RATE),
            None if patterns is None else dict(zip(classes, patterns.tolist(), strict=True)),
            float(np.quantile(distances, 1 - UNLIKE_SHARE)),
        )
        how = "temperature and prior fitted on one half of them and measured on the other"
    else:
        added = np.float32(fitted.prior_step) * prior
        crossed = softmax(logits[0] + added, fitted.temperature)
        crossed_float = softmax(float_logits + added, fitted.temperature)
        how = "temperature, prior and thresholds fitted for another network, none of them on these maps"

    # The prior goes into the files that serve, not into the weights: training that goes on from them fits its own.
    added = np.float32(fitted.prior_step) * prior
    for path in (float_path, int8_path):
        add_to_logits(path, added)
    write_weights(folder / NAME, network)

    good = about.get("good") or NONE
    metrics = measure(crossed, held_out.targets, classes, good=good)
    weights = natural_weights(held_out.targets, classes, good)
    natural = measure(crossed, held_out.targets, classes, weights, good=good) if weights is not None else {}
    labels = (logits[0] + added).argmax(axis=1)
    metrics |= {
        "measured_on": f"{len(held_out.targets)} held-out maps, split by group; int8; {how}",
        "at_natural_share_of_none": {
            key: natural[key]
            for key in ("accuracy", "macro_f1", "binary_precision", "missed_as_none", "ece")
            if key in natural
        },
        "float32": {
            key: measure(crossed_float, held_out.targets, classes)[key]
            for key in ("accuracy", "macro_f1", "worst_class_recall")
        },
        "same_label_as_native": {
            name: float(((part + added).argmax(axis=1) == labels).mean())
            for name, part in zip(DRAWINGS[1:], logits[1:], strict=True)
        },
    }
    if probabilities is not None:
        metrics["patterns"] = _measure_patterns(probabilities, shown, len(held_out.targets), classes, good)
    card = ModelCard(
        **about,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=list(classes),
        input=InputSpec(size=INPUT_SIZE, channels=CHANNELS, scaling_version=SCALING_VERSION),
        embedding_size=network.head.in_features,
        files={"int8": describe_file(int8_path), "float32": describe_file(float_path)},
        weights=describe_file(folder / NAME),
        likeness=describe_file(folder / LIKENESS_NAME),
        training_maps=None if seen_before is None else write_seen_maps(folder, seen_before | digests_of(trained_on)),
        unlike_distance=fitted.unlike_distance,
        patterns=fitted.patterns,
        temperature=fitted.temperature,
        thresholds=fitted.thresholds,
        review_error_rate=REVIEW_ERROR_RATE,
        metrics=json.loads(json.dumps(metrics), parse_float=lambda text: round(float(text), 5)),
        training_data=TrainingData(name=trained_on.name, sha256=trained_on.digest(), counts=trained_on.counts()),
        training={"parameters": parameters(network), "prior_step": round(fitted.prior_step, 3), **training},
    )
    write_card(folder, card)
    return card


def _crossed(
    logits: NDArray[np.float32],
    float_logits: NDArray[np.float32],
    held_out: HeldOut,
    prior: NDArray[np.float32],
    classes: Sequence[str],
    prior_step: float | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the probabilities of both files, each half of the maps by what was fitted on the other half."""
    halves = grouped_folds(held_out.targets.astype(np.str_), held_out.groups, 2, seed=0)
    crossed, crossed_float = np.empty_like(logits), np.empty_like(logits)
    for half in (0, 1):
        fit, rest = halves != half, halves == half
        targets = held_out.targets[fit]
        step = fit_prior(logits[fit], targets, prior, classes) if prior_step is None else prior_step
        added = np.float32(step) * prior
        temperature = fit_temperature(logits[fit] + added, targets)
        crossed[rest] = softmax(logits[rest] + added, temperature)
        crossed_float[rest] = softmax(float_logits[rest] + added, temperature)
    return crossed, crossed_float


def _likeness(model: Path, inputs: NDArray[np.uint8], targets: NDArray[np.intp]) -> Likeness:
    """Fit the likeness to the embeddings that the model's file has of its training maps."""
    embeddings = [
        run(model, as_inputs(inputs[start : start + 4096]), ["embedding"])["embedding"]
        for start in range(0, len(inputs), 4096)
    ]
    return Likeness.fit(np.concatenate(embeddings), targets)


def _measure_patterns(
    probabilities: NDArray[np.float32], shown: NDArray[np.bool_], single: int, classes: Sequence[str], good: str
) -> dict[str, Any]:
    """Measure the patterns on maps of one class, the first `single`, and on mixed ones.

    The thresholds of each half, every second map, are fitted on the other half.
    """
    named = np.empty_like(shown)
    half = np.arange(len(shown)) % 2 == 0
    for fit, rest in ((half, ~half), (~half, half)):
        named[rest] = probabilities[rest] >= fit_pattern_thresholds(probabilities[fit], shown[fit])
    patterns = [number for number, name in enumerate(classes) if name != good]
    names = [classes[number] for number in patterns]
    found = {"single": measure_patterns(named[:single, patterns], shown[:single, patterns], names)}
    if len(shown) > single:
        found["mixed"] = measure_patterns(named[single:, patterns], shown[single:, patterns], names)
    return found


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _some_of_each(targets: NDArray[np.intp], wanted: int) -> NDArray[np.intp]:
    """Pick up to `wanted` rows of each class, evenly spread over its rows."""
    chosen = []
    for number in np.unique(targets):
        rows = np.flatnonzero(targets == number)
        chosen.append(rows[np.linspace(0, len(rows) - 1, min(wanted, len(rows))).astype(int)])
    return np.concatenate(chosen)
