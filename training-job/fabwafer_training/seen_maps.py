"""Which maps a version was trained on, kept with it as digests, so that a measurement can tell them from others."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fabwafer.models.card import ModelCard, ModelFile, ModelRefusedError, read_checked
from fabwafer.service.files import replace_file
from fabwafer_training.dataset import Dataset

NAME: Final = "training-maps.bin"
BYTES: Final = 8
"""Of each digest: among a million maps the chance that any two share them is 3e-8."""

SeenMaps = frozenset[bytes]


def digests_of(data: Dataset) -> SeenMaps:
    """Return the beginning of the digest of each map."""
    return frozenset(digest[:BYTES] for digest in data.digests())


def write_seen_maps(folder: Path, seen: Iterable[bytes]) -> ModelFile:
    """Write digests, sorted, into a model's folder; return the file's entry for the card."""
    content = b"".join(sorted(seen))
    replace_file(folder / NAME, content, mode=0o644)
    return ModelFile(name=NAME, sha256=hashlib.sha256(content).hexdigest())


def read_seen_maps(folder: Path, card: ModelCard) -> SeenMaps | None:
    """Read what a version and those that it was trained on from have seen; None where that is not known.

    Raises:
        ModelRefusedError: The file is missing, or is not the one that the card names.
    """
    if card.training_maps is None:
        return None
    content = read_checked(folder, card.training_maps)
    if len(content) % BYTES:
        raise ModelRefusedError(f"{folder / NAME}: expected {BYTES} bytes for each map, got {len(content)} in all")
    return frozenset(content[start : start + BYTES] for start in range(0, len(content), BYTES))


def seen_rows(data: Dataset, seen: SeenMaps) -> NDArray[np.bool_]:
    """Tell which maps are among those seen, bool [n]."""
    return np.array([digest[:BYTES] in seen for digest in data.digests()], dtype=bool)
