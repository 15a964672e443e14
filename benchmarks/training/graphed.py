"""Training of several networks at once on one GPU: all maps in its memory, each network's step a CUDA graph.

The steps of `fabwafer train` without what a small network would wait for on a GPU: maps that come from the processor's
memory, and the launch of some hundred kernels a step. On a machine without a GPU it runs step by step, to try a plan.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fabwafer_training.augment import DRAWING_SHARES, turn
from fabwafer_training.network import Shape, WaferNet
from fabwafer_training.train import AVERAGE_DECAY, loss_of, precision, rate_at

WARM_UP_STEPS = 3
"""Steps before the capture: they allocate what the graph then reuses."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        shape: Its shape.
        maps: How many maps it sees.
        batch: Maps in a step.
        rate: The highest learning rate: up over the first twentieth of the steps, then down along a cosine.
        decay: AdamW's weight decay, for matrices.
        seed: Decides all draws and the weights that it starts from.
    """

    shape: Shape
    maps: int
    batch: int = 256
    rate: float = 4e-3
    decay: float = 0.05
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a network is taught: targets [n, classes or 2 x classes] of all maps, and how likely each is drawn, [n]."""

    targets: NDArray[np.float32]
    weights: NDArray[np.float64]


@dataclass
class Run:
    """A network in training: its draws in a table, its step as a graph."""

    name: str
    network: WaferNet
    average: dict[str, Tensor]
    steps: int
    step: Callable[[], None]
    loss: Tensor
    stream: "torch.cuda.Stream | None" = None
    graph: "torch.cuda.CUDAGraph | None" = None

    def advance(self) -> None:
        """Take one step."""
        if self.graph is None or self.stream is None:
            self.step()
        else:
            with torch.cuda.stream(self.stream):
                self.graph.replay()


def start(
    name: str,
    recipe: Recipe,
    lesson: Lesson,
    inputs: Tensor,
    classes: int,
    *,
    fuse: bool,
    begin: Mapping[str, Tensor] | None = None,
) -> Run:
    """Prepare a run, and capture its step where there is a GPU.

    Args:
        name: For the reports.
        recipe: How to train.
        lesson: What to train on.
        inputs: Maps in each drawing times 255, uint8 [n, drawings, channels, size, size], where the run is to be.
        classes: How many classes there are.
        fuse: Whether to compile the network.
        begin: Weights to start from.
    """
    device = inputs.device
    torch.manual_seed(recipe.seed)
    network = WaferNet(classes, recipe.shape)
    if begin is not None:
        network.load_state_dict(begin)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    steps = math.ceil(recipe.maps / recipe.batch)
    rows, drawings, turns = _draws(recipe, lesson.weights, steps, device)
    targets = torch.from_numpy(lesson.targets).to(device)
    rates = torch.tensor([rate_at(step, steps=steps, share=recipe.rate) for step in range(steps)], device=device)
    rate, position = rates[0].clone(), torch.zeros(1, dtype=torch.long, device=device)
    graphed = device.type == "cuda"
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [one for one in parameters if one.ndim > 1], "weight_decay": recipe.decay},
            {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=rate if graphed else 1.0,
        fused=True if graphed else None,
        capturable=graphed,
    )
    state = [value for value in network.state_dict().values() if value.is_floating_point()]
    average = {name: value.clone() for name, value in network.state_dict().items()}
    averages = [value for value in average.values() if value.is_floating_point()]
    loss_sum = torch.zeros((), device=device)

    def loss_of_batch(maps: Tensor, wanted: Tensor) -> Tensor:
        return loss_of(network, maps, wanted)

    fused = torch.compile(loss_of_batch) if fuse else loss_of_batch

    def step() -> None:
        at = position.clamp(max=steps - 1)
        row, drawing, how = (one.index_select(0, at)[0] for one in (rows, drawings, turns))
        maps = inputs[row, drawing].float() / 255
        turned = turn(maps, how).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision(graphed) == "bf16-mixed"):
            loss = fused(turned, targets[row])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        rate.copy_(rates.index_select(0, at)[0])
        if not graphed:
            for group in optimizer.param_groups:
                group["lr"] = float(rate)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, state, 1 - AVERAGE_DECAY)
            loss_sum.add_(loss.detach())
            position.add_(1)

    run = Run(name, network, average, steps, step, loss_sum)
    if graphed:
        run.stream, run.graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
        run.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(run.stream):
            for _ in range(WARM_UP_STEPS):
                step()
        torch.cuda.synchronize()
        with torch.cuda.graph(run.graph, stream=run.stream):
            step()
        torch.cuda.synchronize()
    return run


def go(runs: Sequence[Run], tell: Callable[[str], None]) -> float:
    """Take all steps of several runs at once, and leave each network with the average of its weights.

    Args:
        runs: What `start` returned.
        tell: Called with a sentence now and then.

    Returns:
        Steps in a second, over all runs.
    """
    began, taken, most = time.monotonic(), 0, max(run.steps for run in runs)
    for number in range(most):
        for run in runs:
            if number < run.steps:
                run.advance()
                taken += 1
        if (number + 1) % max(1, most // 8) == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.monotonic() - began
            losses = ", ".join(f"{run.name} {float(run.loss) / (number + 1):.3f}" for run in runs)
            tell(f"  step {number + 1} of {most}, {seconds:.0f} s; mean loss so far: {losses}")
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    rate = taken / (time.monotonic() - began)
    for run in runs:
        run.graph = None
        run.network.load_state_dict(run.average)
        run.network.eval()
    return rate


def outputs(network: WaferNet, inputs: Tensor, drawing: int = 0) -> dict[str, NDArray[np.float32]]:
    """Run a trained network in float32 over maps in one drawing.

    Returns:
        `logits` and `patterns` [n, classes] (the latter where it has them) and `embedding` [n, d].
    """
    parts: dict[str, list[Tensor]] = {"logits": [], "patterns": [], "embedding": []}
    with torch.inference_mode():
        for begin in range(0, len(inputs), 1024):
            maps = inputs[begin : begin + 1024, drawing].float() / 255
            embedding = WaferNet.features(network, maps.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))
            parts["embedding"].append(embedding)
            parts["logits"].append(network.head(embedding))
            if network.patterns is not None:
                parts["patterns"].append(network.patterns(embedding))
    return {name: torch.cat(part).cpu().numpy() for name, part in parts.items() if part}


def _draws(
    recipe: Recipe, weights: NDArray[np.float64], steps: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw all maps of a run and their drawings, each [steps, batch], and how they are turned, [steps, batch, 3]."""
    count, generator = steps * recipe.batch, torch.Generator().manual_seed(recipe.seed)
    chances = np.cumsum(weights) / weights.sum()
    draws = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    rows = torch.from_numpy(np.minimum(np.searchsorted(chances, draws, side="right"), len(weights) - 1))
    drawings = torch.multinomial(torch.tensor(DRAWING_SHARES), count, replacement=True, generator=generator)
    turns = torch.rand((steps, recipe.batch, 3), generator=generator) < 0.5
    shape = (steps, recipe.batch)
    return rows.reshape(shape).to(device), drawings.reshape(shape).to(device), turns.to(device)
