"""Soft targets of training: smoothed labels, and where there are teachers, their probabilities mixed in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fabwafer.models.card import ModelRefusedError, read_card, verify
from fabwafer_training.augment import as_inputs
from fabwafer_training.calibrate import softmax
from fabwafer_training.quantise import run

TEACHER_SHARE: Final = 0.7
"""The weight of the teachers' probabilities beside the label: they tell which labels are doubtful."""

_STEP: Final = 4096


def smooth_labels(targets: NDArray[np.intp], classes: int, smoothing: float) -> NDArray[np.float32]:
    """Return labels as shares of the classes.

    Args:
        targets: Class numbers, [n].
        classes: How many classes there are.
        smoothing: The part of each label that is spread evenly over all classes (Szegedy et al., "Rethinking the
            Inception Architecture for Computer Vision", CVPR 2016).

    Returns:
        Shares that sum to 1, [n, classes].
    """
    soft_targets = np.full((len(targets), classes), smoothing / classes, dtype=np.float32)
    soft_targets[np.arange(len(targets)), targets] += np.float32(1 - smoothing)
    return soft_targets


def with_patterns(
    soft_targets: NDArray[np.float32], targets: NDArray[np.intp], mixed: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the targets of a network that names one class and each of several patterns.

    Args:
        soft_targets: Of maps of one class, [n, classes].
        targets: Their class numbers, [n]: the pattern that each shows, whatever a teacher says of it.
        mixed: Which classes mixed maps show, bool [m, classes]: they have no one class, so their soft targets are 0.

    Returns:
        What `fabwafer_training.train.loss_of` takes: [n + m, 2 x classes], mixed maps last.
    """
    count, classes = soft_targets.shape
    both = np.zeros((count + len(mixed), 2 * classes), dtype=np.float32)
    both[:count, :classes] = soft_targets
    both[np.arange(count), classes + targets] = 1
    both[count:, classes:] = mixed
    return both


def distil(
    soft_targets: NDArray[np.float32], teachers: NDArray[np.float32], taught: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Mix teachers' probabilities into soft targets (Hinton, Vinyals, Dean, "Distilling the Knowledge", 2015).

    Args:
        soft_targets: Smoothed labels, [n, classes].
        teachers: Their probabilities, [n, classes].
        taught: For which maps the teachers count, [n]; by default all. For the others the label alone counts.
    """
    mixed = (1 - np.float32(TEACHER_SHARE)) * soft_targets + np.float32(TEACHER_SHARE) * teachers
    return mixed if taught is None else np.where(taught[:, None], mixed, soft_targets)


def ask_teachers(
    teachers: Sequence[Path], classes: Sequence[str], inputs: NDArray[np.uint8], report: Callable[[str], None]
) -> NDArray[np.float32]:
    """Ask models about maps: the mean of their probabilities.

    On the maps as they are: the mean over all eight symmetries was no better on held-out maps, at eight times the cost.

    Args:
        teachers: The models' folders.
        classes: The classes that are to be learned.
        inputs: Network inputs times 255, uint8 [n, channels, size, size].
        report: Called with a sentence for each teacher.

    Returns:
        Probabilities, [n, classes].

    Raises:
        ModelRefusedError: A teacher cannot be read, or its classes are others.
    """
    total = np.zeros((len(inputs), len(classes)), dtype=np.float32)
    for folder in teachers:
        card = read_card(folder)
        verify(folder, card)
        if card.classes != list(classes):
            raise ModelRefusedError(
                f"the teacher {card.name} {card.version} knows {', '.join(card.classes)}, "
                f"the maps are labelled {', '.join(classes)}"
            )
        report(f"asking {card.name} {card.version} about {len(inputs)} maps")
        model = folder / card.files["int8"].name
        for start in range(0, len(inputs), _STEP):
            maps = as_inputs(inputs[start : start + _STEP])
            total[start : start + _STEP] += softmax(run(model, maps, ["logits"])["logits"], card.temperature)
    return total / np.float32(len(teachers))
