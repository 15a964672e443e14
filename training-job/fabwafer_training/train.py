"""Training a network: the sampler, the schedule, the moving average, and checkpoints to resume from."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from fabwafer_training.augment import DRAWING_SHARES, turn
from fabwafer_training.network import Shape, WaferNet

CHECKPOINT = "checkpoint.pt"
AVERAGE_DECAY = 0.998
"""How much of the moving average stays at each step: it looks back over some 500 steps."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is trained.

    Attributes:
        shape: How large the network is.
        epochs: How many rounds.
        maps_per_epoch: Maps drawn in a round.
        batch: Maps in a step.
        rate: The highest learning rate; it warms up over the first twentieth and falls along a cosine to zero.
        decay: AdamW's weight decay.
        evenness: Classes are drawn in proportion to (maps of the class) ** (1 - evenness): 0 as they are, 1 evenly.
        smoothing: Label smoothing; a few per cent of the labels in the field are wrong.
        seed: Decides everything that is left to chance.
        threads: Processor threads.
        gradual: Whether to train the last layer first, then the last stage as well, then all, at ever lower rates:
            for going on from a network that was trained on other maps.
    """

    shape: Shape = field(default_factory=Shape)
    epochs: int = 40
    maps_per_epoch: int = 24_000
    batch: int = 128
    rate: float = 3e-3
    decay: float = 0.05
    evenness: float = 0.5
    smoothing: float = 0.05
    seed: int = 0
    threads: int = 1
    gradual: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """What is told about a finished round: its number from 1, the mean loss, and how long it took in seconds."""

    number: int
    of: int
    loss: float
    seconds: float


def train(
    inputs: NDArray[np.uint8],
    targets: NDArray[np.intp],
    *,
    classes: int,
    settings: Settings,
    folder: Path,
    report: Callable[[Round], None],
    start: dict[str, Tensor] | None = None,
) -> WaferNet:
    """Trains a network, from the last checkpoint in `folder` if one was left there by the same settings.

    Args:
        inputs: Maps in each drawing times 255, uint8 [n, drawings, channels, size, size].
        targets: Class numbers, [n].
        classes: How many classes there are.
        settings: How to train.
        folder: Where the checkpoint is kept.
        report: Called after each round.
        start: Weights to go on from instead of random ones; those of the last layer are left out when the classes
            are others.

    Returns:
        The moving average of the weights (EMA), ready for inference, on the processor.
    """
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(settings.seed)
    network = WaferNet(classes, settings.shape)
    if start is not None:
        same = {name: value for name, value in start.items() if value.shape == network.state_dict()[name].shape}
        network.load_state_dict(same, strict=False)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=_average_in, use_buffers=True)
    layers = _layers(network, settings)
    optimizer = torch.optim.AdamW(
        [
            {"params": [value for value in layer.parameters() if (value.ndim > 1) == matrices], "weight_decay": decay}
            for layer, _, _ in layers
            for matrices, decay in ((True, settings.decay), (False, 0.0))
        ],
        lr=settings.rate,
    )
    steps = math.ceil(settings.maps_per_epoch / settings.batch) * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, [partial(_rate_at, steps=steps, share=share) for _, _, share in layers for _ in range(2)]
    )

    parts: dict[str, Any] = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    path = folder / CHECKPOINT
    written_by = repr(asdict(settings))
    done = 0
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["settings"] == written_by:
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            done = saved["done"]

    weights = _sampling_weights(targets, classes, settings.evenness)
    wanted = torch.from_numpy(targets)
    for number in range(done, settings.epochs):
        started = time.monotonic()
        losses = []
        torch.manual_seed(settings.seed * 100_003 + number)  # dropout, also in a run that was resumed
        network.train()
        for layer, begins, _ in layers:
            if number < begins:
                layer.eval()
            layer.requires_grad_(number >= begins)
        for rows, maps in _batches(inputs, weights, settings, number):
            with torch.autocast(device.type, torch.bfloat16):
                logits = network(maps.to(device, memory_format=torch.channels_last)).float()
            loss = functional.cross_entropy(logits, wanted[rows].to(device), label_smoothing=settings.smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            losses.append(loss.detach())
        draft = path.with_suffix(".new")
        torch.save(
            {name: part.state_dict() for name, part in parts.items()} | {"done": number + 1, "settings": written_by},
            draft,
        )
        draft.replace(path)
        report(Round(number + 1, settings.epochs, float(torch.stack(losses).mean()), time.monotonic() - started))
    return cast("WaferNet", average.module).cpu().eval()


def _average_in(averaged: Sequence[Tensor], current: Sequence[Tensor], seen: Tensor | int) -> None:
    """Moves the averages towards the current weights, faster at first: the earliest weights should not linger."""
    share = max(1 - AVERAGE_DECAY, 9 / (10 + int(seen)))
    for mean, now in zip(averaged, current, strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, share)
        else:
            mean.copy_(now)


def _layers(network: WaferNet, settings: Settings) -> list[tuple[nn.Module, int, float]]:
    """The parts of a network, each with the round in which its training begins and its share of the rate."""
    if not settings.gradual:
        return [(network, 0, 1.0)]
    blocks, last = list(network.stages), settings.shape.blocks
    return [
        (network.head, 0, 1.0),
        (nn.ModuleList(blocks[-last:]), settings.epochs // 4, 0.3),
        (nn.ModuleList([network.stem, *blocks[:-last]]), settings.epochs // 2, 0.1),
    ]


def _rate_at(step: int, *, steps: int, share: float) -> float:
    """The share of the highest rate at a step: rises over the first twentieth, then falls along half a cosine."""
    warm = max(1, steps // 20)
    if step < warm:
        return share * (step + 1) / warm
    return share * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _sampling_weights(targets: NDArray[np.intp], classes: int, evenness: float) -> Tensor:
    counts = np.bincount(targets, minlength=classes).astype(np.float64)
    return torch.from_numpy(counts[targets] ** -evenness)


def _batches(
    inputs: NDArray[np.uint8], weights: Tensor, settings: Settings, number: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the rows and the turned maps of each step of a round. The round's number and the seed decide all."""
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + number)
    chosen = torch.multinomial(weights, settings.maps_per_epoch, replacement=True, generator=generator)
    drawn = torch.multinomial(
        torch.tensor(DRAWING_SHARES), settings.maps_per_epoch, replacement=True, generator=generator
    )
    for start in range(0, settings.maps_per_epoch, settings.batch):
        rows = chosen[start : start + settings.batch]
        drawing = drawn[start : start + settings.batch]
        maps = torch.from_numpy(inputs[rows.numpy(), drawing.numpy()]).float() / 255
        yield rows, turn(maps, (drawing == 1) | (drawing == 3), generator)
