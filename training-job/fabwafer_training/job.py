"""A training run: from labelled maps to a model's folder."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fabwafer.defects import SHIPPED_CLASSES
from fabwafer.models.card import ModelCard, ModelRefusedError, read_card
from fabwafer_training import processes
from fabwafer_training.augment import draw_many
from fabwafer_training.dataset import DataError, Dataset, numbered
from fabwafer_training.epochs import add_mixed_weights, even_weights
from fabwafer_training.mixing import mix
from fabwafer_training.network import Shape, WaferNet
from fabwafer_training.package import HeldOut, package
from fabwafer_training.seen_maps import SeenMaps
from fabwafer_training.soft_targets import ask_teachers, distil, smooth_labels, with_patterns
from fabwafer_training.splits import clean, held_out_from_training
from fabwafer_training.train import CHECKPOINT, Epoch, Layers, Settings, train
from fabwafer_training.weights import interpolate_weights, read_weights

MOST_MIXED = 10_000
"""Mixed maps to train on, at most; never more than a quarter of the others, for the memory that they take."""
MIXED_TO_MEASURE_ON = 2_500

LEAST_MAPS = 5
"""Maps that a class needs to be learned: with fewer, none would be left to measure on."""
LEAST_HELD_OUT = 2
"""Groups that are held out at least: what is fitted on one half of the held-out maps is measured on the other."""


def classes_of(data: Dataset) -> list[str]:
    """Return the classes that occur: those of the shipped model in its order, then a fab's own by name."""
    found = set(data.labels.tolist())
    return [name for name in SHIPPED_CLASSES if name in found] + sorted(found - set(SHIPPED_CLASSES))


@dataclass(frozen=True, slots=True)
class Material:
    """Labelled maps ready for training.

    Attributes:
        data: The maps, cleaned.
        classes: The class names in the order of the network's outputs.
        held_out: Which maps are held out to calibrate and measure on, [n].
        held_out_seed: The seed of that split, for the card, so that others can hold out the same maps.
        taught: For which maps teachers count, [n]; None for all. For the others the label alone counts.
    """

    data: Dataset
    classes: list[str]
    held_out: NDArray[np.bool_]
    held_out_seed: int
    taught: NDArray[np.bool_] | None = None

    @property
    def targets(self) -> NDArray[np.intp]:
        """The class number of each map, [n]."""
        return numbered(self.data, self.classes)

    def side(self, held_out: bool) -> Dataset:
        """Return the held-out maps, or those to train on."""
        return self.data.subset(np.flatnonzero(self.held_out == held_out))


def prepare(data: Dataset, held_out_seed: int, tell: Callable[[str], None]) -> Material:
    """Clean the maps of conflicts and duplicates, and hold out a fifth of them by group.

    Args:
        data: Labelled maps.
        held_out_seed: Decides which groups are held_out.
        tell: Called with a sentence on what was left out.

    Raises:
        DataError: There are fewer than two classes, a class has too few maps or all of them in one group, or all maps
            that are held out are in one group.
    """
    for sentence in data.unread:
        tell(sentence)
    cleaned, left_out = clean(data)
    tell(
        f"{len(data)} maps; left out {len(left_out.conflicting)} with conflicting labels and "
        f"{len(left_out.repeated)} exact duplicates"
    )
    counts = cleaned.counts()
    if len(counts) < 2 or min(counts.values()) < LEAST_MAPS:
        raise DataError(f"{data.name}: training needs two classes of at least {LEAST_MAPS} maps, found {counts}")
    held_out = held_out_from_training(cleaned, held_out_seed)
    absent = sorted(set(counts) - set(cleaned.labels[~held_out].tolist()))
    if absent:
        raise DataError(
            f"{data.name}: all maps of {', '.join(absent)} are in one group, which cannot be split, or in valid"
        )
    if len(set(cleaned.groups[held_out].tolist())) < LEAST_HELD_OUT:
        raise DataError(
            f"{data.name}: expected two groups of maps held out at least, to calibrate on one half and measure on the "
            f"other, found {held_out.sum()} maps held out in one: give each lot its own group"
        )
    return Material(cleaned, classes_of(cleaned), held_out, held_out_seed)


def train_model(
    material: Material,
    folder: Path,
    settings: Settings,
    about: dict[str, Any],
    *,
    tell: Callable[[str], None],
    report: Callable[[Epoch], None],
    start: dict[str, Tensor] | None = None,
    teachers: Sequence[Path] = (),
    prior_step: float | None = None,
    interpolation: float = 0.0,
    seen_before: SeenMaps | None = frozenset(),
) -> ModelCard | None:
    """Trains, calibrates and quantises, and writes the model and its card.

    Run again after a kill with the same arguments, it goes on from the last finished epoch.

    Args:
        material: The maps to train on, and those to calibrate and measure on.
        folder: Where to write; also holds the checkpoint while training.
        settings: How to train.
        about: The card's `name`, `version`, `description`, `good`, `limits`, `notice` and `citations`.
        tell: Called with a sentence at each step.
        report: Called after each epoch.
        start: Weights to go on from; those of the last layer are left out when the classes are others.
        teachers: Folders of models that have the same classes, to learn from as well as from the labels.
        prior_step: How far to move the logits towards the class frequencies; by default fitted on the held-out maps.
        interpolation: How far to move the weights back to `start` at the end, 0 to 1.
        seen_before: The maps that the model of `start` has seen; None where that is not known.

    Returns:
        The card; None in all but the first of several processes.

    Raises:
        ModelRefusedError: A teacher cannot be read, its classes are others, or training gave no finite weights.
    """
    targets, held_out = material.targets, material.held_out
    tell(f"training on {(~held_out).sum()} maps; {held_out.sum()} are held out by group to calibrate and measure")
    folder.mkdir(parents=True, exist_ok=True)
    learned = material.side(held_out=False)
    count = min(MOST_MIXED, len(learned) // 4) if settings.shape.patterns else 0
    mixed = mix(learned, material.classes, count, settings.seed)
    grids = [*material.data.grids, *mixed.grids]
    inputs, held_out_inputs = draw_many(grids, np.append(held_out, np.zeros(len(mixed.grids), bool)), settings.seed)
    soft_targets = smooth_labels(targets[~held_out], len(material.classes), settings.smoothing)
    names = [f"{card.name} {card.version}" for card in map(read_card, teachers)]
    if teachers:
        probabilities = ask_teachers(teachers, material.classes, inputs[: len(learned), 0], tell)
        soft_targets = distil(
            soft_targets, probabilities, None if material.taught is None else material.taught[~held_out]
        )
    torch.manual_seed(settings.seed)
    network = WaferNet(len(material.classes), settings.shape)
    if start is not None:
        network.load_state_dict(start, strict=False)
    train(
        network,
        inputs,
        with_patterns(soft_targets, targets[~held_out], mixed.patterns) if settings.shape.patterns else soft_targets,
        add_mixed_weights(even_weights(targets[~held_out], settings.evenness), len(mixed.grids)),
        settings=settings,
        folder=folder,
        report=report,
        layers=_gradual_unfreezing(network, settings) if settings.gradual else (),
    )
    if not processes.is_first():
        return None
    if start is not None and interpolation:
        interpolate_weights(network, start, interpolation)
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise ModelRefusedError(
            f"expected finite weights after training, got others: {about['name']} {about['version']} was not written; "
            "a lower learning rate may help"
        )
    tell("calibrating, exporting and quantising")
    card = package(
        network,
        classes=material.classes,
        trained_on=learned,
        trained_inputs=inputs,
        held_out=HeldOut.of(
            material.side(held_out=True),
            held_out_inputs,
            material.classes,
            mixed=MIXED_TO_MEASURE_ON if settings.shape.patterns else 0,
            seed=settings.seed + 1,
        ),
        folder=folder,
        about=about,
        training=asdict(settings)
        | {"held_out_seed": material.held_out_seed}
        | ({"teachers": names} if names else {})
        | ({"interpolation": interpolation} if interpolation else {}),
        prior_step=prior_step,
        seen_before=seen_before,
    )
    (folder / CHECKPOINT).unlink()
    return card


def _gradual_unfreezing(network: WaferNet, settings: Settings) -> list[Layers]:
    """Order the layers to unfreeze: the last layers first, then the last stage, then all, at lower rates."""
    blocks, last = list(network.stages), settings.shape.blocks
    heads = [network.head, *([network.patterns] if network.patterns is not None else [])]
    top = [*blocks[-last:], *([network.pyramid] if network.pyramid is not None else [])]
    return [
        Layers(nn.ModuleList(heads)),
        Layers(nn.ModuleList(top), settings.epochs // 4, 0.3),
        Layers(nn.ModuleList([network.stem, *blocks[:-last]]), settings.epochs // 2, 0.1),
    ]


def weights_to_go_on_from(model: Path, classes: list[str]) -> tuple[dict[str, Tensor], Shape]:
    """Read a model's weights, without those of the last layer when the classes are others.

    Raises:
        ModelRefusedError: There is no such model, or it came without weights.
    """
    card = read_card(model)
    state, shape = read_weights(model, card)
    if card.classes != classes:
        state = {name: value for name, value in state.items() if not name.startswith(("head.", "patterns."))}
    return state, shape
