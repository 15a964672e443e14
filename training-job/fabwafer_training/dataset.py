"""Labelled wafer maps: what every reader returns and all of training works on."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fabwafer.defects import NOT_A_WAFER, canonical_name
from fabwafer.errors import FabwaferError

_CLASS_NAME: Final = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,63}")
"""It names folders and the labels of metrics, so it must not lead out of the one or flood the others."""
CLASS_NAME_RULE: Final = "expected a class of 1 to 64 characters, without slashes and not beginning with a dot"


class DataError(FabwaferError):
    """Training data that cannot be used. Its text names the file, the field and the row where it has them."""


class UnreachableError(DataError):
    """Training data that cannot be reached now, and may be reached later."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled wafer maps.

    Attributes:
        name: What the maps are called in a model card.
        grids: Die grids, uint8 [rows, columns]: 0 outside, 1 passed, 2 failed.
        labels: The class of each map; known names in any case get their usual spelling, as in messages.
        groups: The lot of each map, or what stands in for one. Splits never cut through a group.
        split: Which part of the source each map is in (`train`, `valid`, ...), empty where the source has no parts.
        unread: Sentences on what in the source is not among the maps, or was not read as it stands, and why.
        names: What each map is called in its source; by default its number there.
    """

    name: str
    grids: Sequence[NDArray[np.uint8]]
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]
    split: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))
    unread: tuple[str, ...] = ()
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        usual = {label: canonical_name(label) for label in set(self.labels.tolist())}
        if any(label != name for label, name in usual.items()):
            names = np.array([usual[label] for label in self.labels.tolist()], dtype=np.str_)
            object.__setattr__(self, "labels", names)
        if not self.names:
            object.__setattr__(self, "names", [f"row {row}" for row in range(len(self.grids))])

    def __len__(self) -> int:
        return len(self.grids)

    def subset(self, rows: NDArray[np.intp]) -> "Dataset":
        """Return the maps with the given row numbers, in that order."""
        return Dataset(
            self.name,
            [self.grids[row] for row in rows],
            self.labels[rows],
            self.groups[rows],
            self.split[rows] if len(self.split) else self.split,
            names=[self.names[row] for row in rows],
        )

    def counts(self) -> dict[str, int]:
        """Return how many maps each class has, by class name."""
        return dict(sorted(Counter(self.labels.tolist()).items()))

    def digests(self) -> list[bytes]:
        """Return for each map a digest of its grid: equal grids, and only those, have equal digests."""
        return [digest_grid(grid) for grid in self.grids]

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of all maps and labels. The order of the rows does not matter."""
        rows = sorted(
            digest + label.encode() for digest, label in zip(self.digests(), self.labels.tolist(), strict=True)
        )
        return hashlib.sha256(b"\n".join(rows)).hexdigest()


def numbered(data: Dataset, classes: Sequence[str]) -> NDArray[np.intp]:
    """Return the class number of each map, [n].

    Raises:
        KeyError: A label is none of the classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[label] for label in data.labels.tolist()], dtype=np.intp)


def check_classes(source: str, data: Dataset) -> None:
    """Check that the labels can be names of classes.

    Args:
        source: What the maps were read from, for the sentence.
        data: The maps.

    Raises:
        DataError: One cannot be, or two are the same but for the case.
    """
    seen: dict[str, str] = {}
    for label in sorted(set(data.labels.tolist())):
        name = data.names[int(np.flatnonzero(data.labels == label)[0])]
        if not can_name_class(label):
            raise DataError(f"{source}: {name}: {CLASS_NAME_RULE}, got {label!r}")
        if label == NOT_A_WAFER:
            raise DataError(f"{source}: {name}: {label} is no class of wafers: it is what other pictures are called")
        other = seen.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(f"{source}: {name}: the classes {other!r} and {label!r} differ in nothing but the case")


def can_name_class(label: str) -> bool:
    """Tell whether a label can be the name of a class, as `CLASS_NAME_RULE` says it."""
    return _CLASS_NAME.fullmatch(label) is not None


def digest_grid(grid: NDArray[np.uint8]) -> bytes:
    """Return the SHA-256 of a die grid's shape and dies."""
    rows, columns = grid.shape
    return hashlib.sha256(f"{rows}x{columns}:".encode() + np.ascontiguousarray(grid).tobytes()).digest()


def joined(first: Dataset, second: Dataset) -> Dataset:
    """Return the maps of both; their groups stay apart."""
    return Dataset(
        f"{first.name} and {second.name}",
        [*first.grids, *second.grids],
        np.concatenate([first.labels, second.labels]),
        np.array([f"{data.name}: {group}" for data in (first, second) for group in data.groups.tolist()]),
        names=[f"{data.name}: {name}" for data in (first, second) for name in data.names],
    )
