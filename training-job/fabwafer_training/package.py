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
from fabwafer_training.augment import DRAWINGS, as_inputs
from fabwafer_training.calibrate import fit_prior, fit_temperature, fit_thresholds, log_prior, softmax
from fabwafer_training.dataset import Dataset
from fabwafer_training.metrics import measure, natural_weights
from fabwafer_training.network import WaferNet, parameters
from fabwafer_training.quantise import FLOAT_NAME, INT8_NAME, add_to_logits, export, quantise, run
from fabwafer_training.seen_maps import SeenMaps, digests_of, write_seen_maps
from fabwafer_training.splits import grouped_folds
from fabwafer_training.weights import NAME, write_weights

REVIEW_ERROR_RATE = 0.05
CALIBRATION_MAPS_A_CLASS = 60


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out maps: their inputs in each drawing times 255, class numbers, and groups."""

    inputs: NDArray[np.uint8]
    targets: NDArray[np.intp]
    groups: NDArray[np.str_]


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
        seen_before: The maps that the model it was trained on from has seen; None where that is not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {name: number for number, name in enumerate(classes)}
    trained_targets = np.array([numbers[label] for label in trained_on.labels.tolist()])
    counts = np.bincount(trained_targets, minlength=len(classes)).astype(np.float64)
    some = _some_of_each(trained_targets, CALIBRATION_MAPS_A_CLASS)
    calibration = as_inputs(trained_inputs[some, np.arange(len(some)) % len(DRAWINGS)])

    float_path, int8_path = folder / FLOAT_NAME, folder / INT8_NAME
    export(network, float_path)
    quantise(float_path, int8_path, calibration)
    inputs = [as_inputs(held_out.inputs[:, drawing]) for drawing in range(len(DRAWINGS))]
    float_logits = run(float_path, inputs[0])["logits"]
    logits = [run(int8_path, part)["logits"] for part in inputs]

    prior = log_prior(counts)

    def step_for(rows: NDArray[np.bool_]) -> float:
        return fit_prior(logits[0][rows], held_out.targets[rows], prior, classes) if prior_step is None else prior_step

    halves = grouped_folds(held_out.targets.astype(np.str_), held_out.groups, 2, seed=0)
    crossed, crossed_float = np.empty_like(logits[0]), np.empty_like(logits[0])
    for half in (0, 1):
        fit, rest = halves != half, halves == half
        half_prior = np.float32(step_for(fit)) * prior
        temperature = fit_temperature(logits[0][fit] + half_prior, held_out.targets[fit])
        crossed[rest] = softmax(logits[0][rest] + half_prior, temperature)
        crossed_float[rest] = softmax(float_logits[rest] + half_prior, temperature)

    # The prior goes into the files that serve, not into the weights: training that goes on from them fits its own.
    step = step_for(np.ones(len(held_out.targets), dtype=bool))
    added = np.float32(step) * prior
    for path in (float_path, int8_path):
        add_to_logits(path, added)
    write_weights(folder / NAME, network)
    final = logits[0] + added
    temperature = fit_temperature(final, held_out.targets)
    thresholds = fit_thresholds(softmax(final, temperature), held_out.targets, classes, REVIEW_ERROR_RATE)

    good = about.get("good") or NONE
    metrics = measure(crossed, held_out.targets, classes, good=good)
    weights = natural_weights(held_out.targets, classes, good)
    natural = measure(crossed, held_out.targets, classes, weights, good=good) if weights is not None else {}
    native = final.argmax(axis=1)
    metrics |= {
        "measured_on": (
            f"{len(held_out.targets)} held-out maps, split by group; int8; temperature and prior fitted on one half "
            "of them and measured on the other"
        ),
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
            name: float(((part + added).argmax(axis=1) == native).mean())
            for name, part in zip(DRAWINGS[1:], logits[1:], strict=True)
        },
    }
    card = ModelCard(
        **about,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=list(classes),
        input=InputSpec(size=INPUT_SIZE, channels=CHANNELS, scaling_version=SCALING_VERSION),
        embedding_size=network.head.in_features,
        files={"int8": describe_file(int8_path), "float32": describe_file(float_path)},
        weights=describe_file(folder / NAME),
        training_maps=None if seen_before is None else write_seen_maps(folder, seen_before | digests_of(trained_on)),
        temperature=temperature,
        thresholds=thresholds,
        review_error_rate=REVIEW_ERROR_RATE,
        metrics=json.loads(json.dumps(metrics), parse_float=lambda text: round(float(text), 5)),
        training_data=TrainingData(name=trained_on.name, sha256=trained_on.digest(), counts=trained_on.counts()),
        training={"parameters": parameters(network), "prior_step": round(step, 3), **training},
    )
    write_card(folder, card)
    return card


def _some_of_each(targets: NDArray[np.intp], wanted: int) -> NDArray[np.intp]:
    """Pick up to `wanted` rows of each class, evenly spread over its rows."""
    chosen = []
    for number in np.unique(targets):
        rows = np.flatnonzero(targets == number)
        chosen.append(rows[np.linspace(0, len(rows) - 1, min(wanted, len(rows))).astype(int)])
    return np.concatenate(chosen)
