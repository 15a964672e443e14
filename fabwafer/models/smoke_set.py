"""The smoke set: a few maps that any model must answer with finite numbers before it serves."""

import numpy as np
from numpy.typing import NDArray

from fabwafer.defects import SHIPPED_CLASSES
from fabwafer.maps.grid import FAILED, PASSED
from fabwafer.maps.synthetic import make

_SIDE = 26
_SEED = 0


def smoke_set() -> list[NDArray[np.uint8]]:
    """Return synthetic maps of each pattern, and one each with all dies passed and all failed; always the same."""
    rng = np.random.default_rng(_SEED)
    patterns = [make(rng, label, _SIDE, _SIDE) for label in SHIPPED_CLASSES]
    return [*patterns, *(np.full((_SIDE, _SIDE), die, np.uint8) for die in (PASSED, FAILED))]
