"""Training epochs: maps drawn at random, each in one of the ways of drawing it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fabwafer_training.augment import DRAWING_SHARES

MIXED_SHARE = 0.125
"""How many of the maps drawn are mixed, where there are any."""

Draw = tuple[int, int]
"""A map's row, and the number of its drawing."""

Batch = tuple[Tensor, Tensor]
"""Maps, float [n, channels, size, size], and their targets [n, classes or 2 x classes]."""


def even_weights(targets: NDArray[np.intp], evenness: float) -> NDArray[np.float64]:
    """Return how likely each map is drawn, [n]: 0 draws classes as frequent as they are, 1 all alike."""
    counts = np.bincount(targets).astype(np.float64)
    weights: NDArray[np.float64] = counts[targets] ** -evenness
    return weights


def add_mixed_weights(weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return weights with those of `count` mixed maps behind them: `MIXED_SHARE` of the maps drawn will be mixed."""
    each = weights.sum() * MIXED_SHARE / (1 - MIXED_SHARE) / max(1, count)
    return np.append(weights, np.full(count, each))


class Draws(Sampler[Draw]):
    """The maps of an epoch and their drawings, by seed and epoch; of several processes each gets its own.

    Args:
        weights: How likely each map is drawn, [n].
        count: Maps in an epoch, over all processes.
        seed: Decides.
        rank: Which process this is.
        world: How many there are.
    """

    def __init__(self, weights: NDArray[np.float64], count: int, seed: int, rank: int, world: int) -> None:
        self._weights = torch.from_numpy(weights)
        self._count, self._seed, self._rank, self._world = count, seed, rank, world
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch comes, from 0; the trainer does."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(range(self._rank, self._count, self._world))

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self._epoch)
        rows = torch.multinomial(self._weights, self._count, replacement=True, generator=generator)
        shares = torch.tensor(DRAWING_SHARES)
        drawings = torch.multinomial(shares, self._count, replacement=True, generator=generator)
        mine = slice(self._rank, None, self._world)
        yield from zip(rows[mine].tolist(), drawings[mine].tolist(), strict=True)


class _Maps(Dataset[Batch]):
    """Maps by row and drawing, a whole batch at a time."""

    def __init__(self, inputs: NDArray[np.uint8], targets: NDArray[np.float32]) -> None:
        self._inputs, self._targets = inputs, torch.from_numpy(targets)

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        rows, drawings = np.array(draws).T
        maps = torch.from_numpy(self._inputs[rows, drawings]).float() / 255
        return maps, self._targets[rows]


class Epochs(LightningDataModule):
    """Epochs of training maps for a trainer of one or of several processes.

    Args:
        inputs: Maps in each drawing times 255, uint8 [n, drawings, channels, size, size].
        targets: What the network should answer to each, [n, classes or 2 x classes].
        weights: How likely each is drawn, [n].
        count: Maps in an epoch.
        batch: Maps in a step, over all processes.
        seed: Decides what is drawn.
    """

    def __init__(
        self,
        inputs: NDArray[np.uint8],
        targets: NDArray[np.float32],
        weights: NDArray[np.float64],
        *,
        count: int,
        batch: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._maps = _Maps(inputs, targets)
        self._weights, self._count, self._batch, self._seed = weights, count, batch, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of this process."""
        if self.trainer is None:
            raise RuntimeError("epochs are drawn for a trainer, and there is none")
        rank, world = self.trainer.global_rank, self.trainer.world_size
        draws = Draws(self._weights, self._count, self._seed, rank, world)
        return DataLoader(
            self._maps,
            batch_size=max(1, self._batch // world),
            sampler=draws,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else a loader takes a number of torch's own, which decides how maps turn
        )


def _as_it_is(batch: Any) -> Any:
    """Return a batch as it is: `_Maps` makes whole batches."""
    return batch
