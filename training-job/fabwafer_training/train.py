"""Training of a network with Lightning: optimiser, schedule, frozen layers, weight averaging, checkpoints."""

import hashlib
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, RichProgressBar, WeightAveraging
from torch import Tensor, nn
from torch.nn import functional

from fabwafer_training.augment import turn
from fabwafer_training.epochs import Batch, Epochs
from fabwafer_training.network import Shape, WaferNet

CHECKPOINT = "checkpoint.ckpt"
AVERAGE_DECAY = 0.998
"""How much of the moving average stays at each step: it looks back over some 500 steps."""

PATTERNS_SHARE = 0.25
"""How much the loss of the patterns, summed over the classes, counts beside that of the one class."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits [n, classes] and soft_targets [n, classes] to one number."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is trained.

    Attributes:
        shape: How large the network is.
        epochs: How many.
        maps_per_epoch: Maps drawn in each.
        batch: Maps in a step, over all processes.
        rate: The highest learning rate; it warms up over the first twentieth and falls along a cosine to zero.
        decay: AdamW's weight decay.
        evenness: Classes are drawn in proportion to (maps of the class) ** (1 - evenness): 0 as they are, 1 evenly.
        smoothing: Label smoothing; a few per cent of the labels in the field are wrong.
        seed: Of all random draws.
        threads: Processor threads of each process.
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
class Epoch:
    """A finished epoch: its number from 1, of how many, the mean loss, and its duration in seconds."""

    number: int
    of: int
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Layers:
    """A part of a network: the epoch from which it trains, and its share of the learning rate."""

    modules: nn.Module
    begins: int = 0
    share: float = 1.0


def train(
    network: nn.Module,
    inputs: NDArray[np.uint8],
    targets: NDArray[np.float32],
    weights: NDArray[np.float64],
    *,
    settings: Settings,
    folder: Path,
    report: Callable[[Epoch], None],
    layers: Sequence[Layers] = (),
    loss: Loss = functional.cross_entropy,
) -> None:
    """Train a network, from the last checkpoint in `folder` if the same run left one there.

    Under `torchrun` each process trains on its own part of each step, and the gradients are averaged.

    Args:
        network: Maps [n, channels, size, size] to logits [n, classes]. Left with the moving average of its weights
            (EMA), ready for inference, on the processor.
        inputs: Maps in each drawing times 255, uint8 [n, drawings, channels, size, size].
        targets: What `loss_of` takes, [n, classes or 2 x classes].
        weights: How likely each map is drawn, [n].
        settings: How to train.
        folder: Where the checkpoint is held_out.
        report: Called after each epoch, in the process of rank 0.
        layers: Parts of the network that start later or learn at lower rates; by default all of it at once.
        loss: The loss function.
    """
    torch.set_num_threads(settings.threads)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.manual_seed(settings.seed)
    # Arrays and settings, so that other maps, labels or teachers never go on from this run's checkpoint.
    identity = hashlib.sha256(repr(asdict(settings)).encode() + targets.tobytes() + weights.tobytes()).hexdigest()
    steps = math.ceil(settings.maps_per_epoch / settings.batch) * settings.epochs
    module = _Module(network, list(layers) or [Layers(network)], loss, settings, steps, identity)
    epochs = Epochs(inputs, targets, weights, count=settings.maps_per_epoch, batch=settings.batch, seed=settings.seed)
    with warnings.catch_warnings():
        # Of Lightning: that loading maps in this process may be slow (they are in memory), that nothing is logged.
        warnings.filterwarnings("ignore", module="pytorch_lightning.*")
        # Of torch: that a 1x1 convolution's gradient has other strides than its bucket, which it may have.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        trainer = _trainer(settings, folder, report, gradual=len(layers) > 1)
        trainer.fit(module, epochs, ckpt_path=_checkpoint_of(folder / CHECKPOINT, identity), weights_only=True)
    network.cpu().eval().requires_grad_(True)


def loss_of(network: nn.Module, maps: Tensor, targets: Tensor, loss: Loss = functional.cross_entropy) -> Tensor:
    """Return the loss of a batch.

    Args:
        network: A network; one that has `patterns` is trained on both of its layers.
        maps: Network inputs, float [n, channels, size, size].
        targets: What `loss` takes, [n, classes]; with patterns followed by which of them each map shows, 0 or 1,
            [n, 2 x classes]. A map of several patterns has no one class: its soft targets are all 0.
        loss: Of the logits of the one class.
    """
    if not isinstance(network, WaferNet) or network.patterns is None:
        return loss(network(maps).float(), targets)
    logits, patterns = network.both(maps)
    classes = logits.shape[1]
    shown = functional.binary_cross_entropy_with_logits(patterns.float(), targets[:, classes:], reduction="sum")
    return loss(logits.float(), targets[:, :classes]) + PATTERNS_SHARE * shown / len(maps)


def _trainer(settings: Settings, folder: Path, report: Callable[[Epoch], None], *, gradual: bool) -> Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    strategy = "auto"
    if "WORLD_SIZE" in os.environ:
        # Layers that are still frozen have no gradients to average.
        strategy = "ddp_find_unused_parameters_true" if gradual else "ddp"
    bar = [RichProgressBar(leave=False)] if sys.stdout.isatty() else []
    return Trainer(
        max_epochs=settings.epochs,
        accelerator="auto",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        strategy=strategy,
        precision=precision(torch.cuda.is_available()),
        use_distributed_sampler=False,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=bool(bar),
        default_root_dir=folder,
        callbacks=[
            WeightAveraging(multi_avg_fn=_average_in),
            _Report(settings.epochs, report),
            ModelCheckpoint(folder, Path(CHECKPOINT).stem, enable_version_counter=False, every_n_epochs=1),
            *bar,
        ],
    )


def precision(gpu: bool) -> Literal["bf16-mixed", "32-true"]:
    """Return the precision to train in: bfloat16 where that is faster.

    On processors without AVX-512, torch computes bfloat16 convolutions by a reference routine: fifteen times as slow
    as float32 where it was measured (an EPYC of the third generation).

    Args:
        gpu: Whether a GPU trains.
    """
    if gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # torch says so nowhere else
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        fast = has_onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def _checkpoint_of(path: Path, identity: str) -> Path | None:
    """Return the checkpoint if the same run left it and it is whole, else None."""
    if not path.exists():
        return None
    try:
        run = torch.load(path, map_location="cpu", weights_only=True).get("run")
    except Exception:  # torch says in many ways that a file is none of its own
        return None
    return path if run == identity else None


class _Module(LightningModule):
    """A network in training."""

    def __init__(
        self, network: nn.Module, layers: Sequence[Layers], loss: Loss, settings: Settings, steps: int, identity: str
    ) -> None:
        super().__init__()
        self.network = network
        self._layers, self._loss, self._settings = layers, loss, settings
        self._steps, self._identity = steps, identity

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms, and a schedule for each group of layers."""
        groups = [
            {
                "params": [value for value in layer.modules.parameters() if (value.ndim > 1) == matrices],
                "weight_decay": decay,
            }
            for layer in self._layers
            for matrices, decay in ((True, self._settings.decay), (False, 0.0))
        ]
        rates: list[Callable[[int], float]] = [
            partial(rate_at, steps=self._steps, share=layer.share) for layer in self._layers for _ in range(2)
        ]
        optimizer = torch.optim.AdamW(groups, lr=self._settings.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Unfreeze the layers that train from this epoch on, and seed it, so that a resumed run repeats it."""
        torch.manual_seed((self._settings.seed * 100_003 + self.current_epoch) * 1_009 + self.global_rank)
        self.network.train()
        for layer in self._layers:
            if self.current_epoch < layer.begins:
                layer.modules.eval()
            layer.modules.requires_grad_(self.current_epoch >= layer.begins)

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss of a step."""
        maps, targets = batch
        turned = turn(maps, torch.rand(len(maps), 3, device=maps.device) < 0.5)
        turned = turned.contiguous(memory_format=torch.channels_last)
        return loss_of(self.network, turned, targets, self._loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which run the checkpoint is of."""
        checkpoint["run"] = self._identity


class _Report(Callback):
    """Reports each epoch, in the process of rank 0."""

    def __init__(self, epochs: int, report: Callable[[Epoch], None]) -> None:
        self._epochs, self._report = epochs, report
        self._losses: list[Tensor] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        self._losses.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            loss = float(torch.stack(self._losses).mean())
            seconds = time.monotonic() - self._started
            self._report(Epoch(trainer.current_epoch + 1, self._epochs, loss, seconds))


def _average_in(averaged: Sequence[Tensor], current: Sequence[Tensor], seen: Tensor | int) -> None:
    """Move the averages towards the current weights, faster at first: the earliest weights should not linger."""
    share = max(1 - AVERAGE_DECAY, 9 / (10 + int(seen)))
    for mean, now in zip(averaged, current, strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, share)
        else:
            mean.copy_(now)


def rate_at(step: int, *, steps: int, share: float) -> float:
    """Return the share of the highest rate at a step: linear warm-up over the first twentieth, then half a cosine."""
    warm = max(1, steps // 20)
    if step < warm:
        return share * (step + 1) / warm
    return share * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
