"""What a network should say of each training map: its label, and where there are teachers, also what they say."""

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
"""How much the teachers' word counts beside the label: they know which labels are doubtful, the label is what is
asked for."""

_STEP: Final = 4096


def smooth_labels(targets: NDArray[np.intp], classes: int, smoothing: float) -> NDArray[np.float32]:
    """Returns labels as shares of the classes.

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


def distil(
    soft_targets: NDArray[np.float32], said: NDArray[np.float32], taught: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Returns soft targets moved towards what teachers say (Hinton, Vinyals, Dean, "Distilling the Knowledge", 2015).

    Args:
        soft_targets: From the labels, [n, classes].
        said: The teachers' probabilities, [n, classes].
        taught: Which maps to ask the teachers about, [n]; by default all. Of the others the label alone counts.
    """
    mixed = (1 - np.float32(TEACHER_SHARE)) * soft_targets + np.float32(TEACHER_SHARE) * said
    return mixed if taught is None else np.where(taught[:, None], mixed, soft_targets)


def ask_teachers(
    teachers: Sequence[Path], classes: Sequence[str], inputs: NDArray[np.uint8], tell: Callable[[str], None]
) -> NDArray[np.float32]:
    """Asks models about maps: the mean of their probabilities.

    As the maps are, not turned as well: the mean over all positions was no better on maps kept aside, at eight times
    the cost.

    Args:
        teachers: The models' folders.
        classes: The classes that are to be learned.
        inputs: Network inputs times 255, uint8 [n, channels, size, size].
        tell: Called with a sentence for each teacher.

    Returns:
        Probabilities, [n, classes].

    Raises:
        ModelRefusedError: A teacher cannot be read, or its classes are others.
    """
    said = np.zeros((len(inputs), len(classes)), dtype=np.float32)
    for folder in teachers:
        card = read_card(folder)
        verify(folder, card)
        if card.classes != list(classes):
            raise ModelRefusedError(
                f"the teacher {card.name} {card.version} knows {', '.join(card.classes)}, "
                f"the maps are labelled {', '.join(classes)}"
            )
        tell(f"asking {card.name} {card.version} about {len(inputs)} maps")
        model = folder / card.files["int8"].name
        for start in range(0, len(inputs), _STEP):
            maps = as_inputs(inputs[start : start + _STEP])
            said[start : start + _STEP] += softmax(run(model, maps)["logits"], card.temperature)
    return said / np.float32(len(teachers))
