"""Labelled maps from the synthetic generator, for demos and for fabs that have none yet."""

import re

import numpy as np

from fabwafer.maps.synthetic import sample
from fabwafer_training.dataset import DataError, Dataset

_LOT = 9
"""Maps that share a group: one of each class."""


def read_synthetic(source: str) -> Dataset:
    """Make the maps that `synthetic:N` or `synthetic:N:SEED` asks for.

    Raises:
        DataError: The text is not of this form.
    """
    asked = re.fullmatch(r"synthetic:(\d+)(?::(\d+))?", source)
    if asked is None:
        raise DataError(f"expected synthetic:N or synthetic:N:SEED, got {source!r}")
    number, seed = int(asked[1]), int(asked[2] or 0)
    if number == 0:
        raise DataError("expected at least one synthetic map, got synthetic:0")
    maps = sample(seed, number)
    return Dataset(
        source,
        [grid for _, grid in maps],
        np.array([label for label, _ in maps]),
        np.array([f"{seed}-{row // _LOT}" for row in range(number)]),
    )
