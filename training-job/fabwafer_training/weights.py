"""The weights that training goes on from, beside a model's files: NumPy arrays, nothing pickled."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from fabwafer.models.card import ModelCard, ModelRefusedError, read_checked
from fabwafer_training.network import Shape, WaferNet

NAME = "weights.npz"


def write_weights(path: Path, network: WaferNet) -> None:
    """Write a network's weights: matrices in half precision, which is finer than they are trained to."""
    state = {name: value.cpu().numpy() for name, value in network.state_dict().items()}
    arrays = {name: value.astype(np.float16) if value.ndim > 1 else value for name, value in state.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def read_arrays(file: Path | BinaryIO) -> dict[str, Tensor]:
    """Read what `write_weights` wrote: a network's state in single precision."""
    with np.load(file, allow_pickle=False) as archive:
        return {
            name: torch.from_numpy(value.astype(np.float32) if value.ndim > 1 else value)
            for name, value in archive.items()
        }


def interpolate_weights(network: WaferNet, start: dict[str, Tensor], share: float) -> None:
    """Interpolate a network's weights between those it was trained to and those it started from.

    It keeps what fine-tuning would forget (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

    Args:
        network: The trained network; changed in place.
        start: The weights that it started from.
        share: Of the start: 0 leaves the network as it is, 1 brings it to its start.
    """
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            value.lerp_(start[name], share)


def read_weights(directory: Path, card: ModelCard) -> tuple[dict[str, Tensor], Shape]:
    """Read a model's weights and the shape of its network.

    Raises:
        ModelRefusedError: The model came without weights, or they are not those that its card describes.
    """
    if card.weights is None or "shape" not in card.training:
        raise ModelRefusedError(f"the model {card.name} {card.version} came without weights to go on from")
    state = read_arrays(io.BytesIO(read_checked(directory, card.weights)))
    shape = card.training["shape"]
    return state, Shape(**{**shape, "widths": tuple(shape["widths"])})
