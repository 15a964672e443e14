"""Splitting labelled maps: never through a group, never with the same map on both sides."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabwafer_training.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What was left out of a data set, by row number of the original.

    Attributes:
        conflicting: Rows whose map occurs with more than one label: which is right is not known.
        repeated: Later rows of a map that occurs more than once with the same label.
    """

    conflicting: NDArray[np.intp]
    repeated: NDArray[np.intp]


def clean(data: Dataset) -> tuple[Dataset, Cleaning]:
    """Leave out maps with conflicting labels, and all but the first of exact duplicates.

    So a duplicate is never on both sides of a split.
    """
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(data.digests()):
        rows_of[digest].append(row)
    conflicting: list[int] = []
    repeated: list[int] = []
    for rows in rows_of.values():
        if len({data.labels[row] for row in rows}) > 1:
            conflicting += rows
        else:
            repeated += rows[1:]
    keep = np.setdiff1d(np.arange(len(data)), np.array(conflicting + repeated, dtype=np.intp))
    return data.subset(keep), Cleaning(
        np.array(sorted(conflicting), dtype=np.intp), np.array(sorted(repeated), dtype=np.intp)
    )


def grouped_folds(labels: NDArray[np.str_], groups: NDArray[np.str_], folds: int, seed: int) -> NDArray[np.intp]:
    """Assign each map to a fold, whole groups at a time, with the classes spread as evenly as groups allow.

    Greedy: the groups richest in rare classes first, each to the fold that has the least of what the group brings.

    Args:
        labels: The class of each map, [n].
        groups: The group of each map, [n].
        folds: How many folds.
        seed: Orders groups that are alike.

    Returns:
        The fold of each map, [n], from 0.
    """
    _, label_index = np.unique(labels, return_inverse=True)
    names, group_index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), label_index.max() + 1))
    np.add.at(counts, (group_index, label_index), 1)
    shares = counts / counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-shares[order].max(axis=1), kind="stable")]
    filled = np.zeros((folds, counts.shape[1]))
    fold_of = np.empty(len(names), dtype=np.intp)
    for group in order:
        fold = int(np.argmin(filled @ shares[group]))
        fold_of[group] = fold
        filled[fold] += shares[group]
    return fold_of[group_index]


HELD_OUT_FOLDS = 5
"""Training holds out one of this many folds, to calibrate and measure on."""


def held_out_from_training(data: Dataset, seed: int) -> NDArray[np.bool_]:
    """Tell which maps training with this seed holds out, [n].

    Those of the parts `valid` and `test` where the source has them, whatever the seed; else whole groups, a fifth of
    each class. WM-811K's own parts are called `Training` and `Test`, and do not count here.
    """
    if (parts := np.isin(data.split, ("valid", "test"))).any():
        return parts
    held_out: NDArray[np.bool_] = grouped_folds(data.labels, data.groups, HELD_OUT_FOLDS, seed) == 0
    return held_out


def gold_half(data: Dataset, held_out: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Tell which of the held-out maps are the gold set, [n]: whole groups, half of each class."""
    gold = np.zeros(len(data), dtype=bool)
    gold[held_out] = grouped_folds(data.labels[held_out], data.groups[held_out], 2, seed) == 0
    return gold


def held_out_by_name(groups: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Tell which maps of growing data to hold out, [n]: about a fifth of the groups, by the hash of their names.

    A group stays on its side whatever comes later, so that what one model was trained on never measures the next.
    """
    names, places = np.unique(groups, return_inverse=True)
    sides = [hashlib.sha256(name.encode()).digest()[0] % HELD_OUT_FOLDS == 0 for name in names.tolist()]
    held_out: NDArray[np.bool_] = np.array(sides, dtype=bool)[places]
    return held_out
