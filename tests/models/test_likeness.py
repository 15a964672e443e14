"""Likeness: maps of a class that training never showed are farther from all classes than those it did."""

from pathlib import Path

import numpy as np
import pytest

from fabwafer.models.likeness import Likeness
from fabwafer_training.metrics import area_under_curve, recall_at


def embeddings(
    seed: int, centre: tuple[float, ...], count: int = 300
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Make embeddings about a centre that vary ten times as much in the first direction as in the others."""
    spread = np.array([1.0, 0.1, 0.1])
    found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = (
        np.random.default_rng(seed).normal(centre, spread, (count, 3)).astype(np.float32)
    )
    return found


def test_a_map_is_unlike_where_the_maps_of_its_class_never_vary() -> None:
    known = np.concatenate([embeddings(0, (0, 0, 0)), embeddings(1, (0, 2, 0))])
    likeness = Likeness.fit(known, np.repeat([0, 1], 300))
    near, far = embeddings(2, (0, 2, 0)), embeddings(3, (0, 0, 1))
    assert area_under_curve(likeness.distances(far), likeness.distances(near)) > 0.99
    assert likeness.distances(np.array([[1.5, 0, 0]], dtype=np.float32)) < likeness.distances(
        np.array([[0, 0, 1]], dtype=np.float32)
    )
    assert likeness.distances(near).mean() == pytest.approx(3, rel=0.2)


def test_a_direction_without_any_variance_is_survived() -> None:
    known = np.concatenate([embeddings(0, (0, 0, 0)), np.zeros((300, 1), dtype=np.float32)], axis=1)
    assert np.isfinite(Likeness.fit(known, np.zeros(300, dtype=np.intp)).distances(known)).all()


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    likeness = Likeness.fit(embeddings(0, (0, 0, 0)), np.arange(300) % 3)
    likeness.write(tmp_path / "likeness.npz")
    again = Likeness.read((tmp_path / "likeness.npz").read_bytes())
    np.testing.assert_array_equal(again.whitening, likeness.whitening)
    np.testing.assert_array_equal(again.centres, likeness.centres)


def test_a_file_with_other_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match="expected the arrays whitening and centres, found weights"):
        Likeness.read((tmp_path / "other.npz").read_bytes())


def test_scores_are_ranked() -> None:
    high, low = np.array([3, 2, 2], dtype=np.float32), np.array([1, 2, 0], dtype=np.float32)
    assert area_under_curve(high, low) == pytest.approx((3 + 2.5 + 2.5) / 9)
    assert recall_at(high, low, 0.0) == pytest.approx(1 / 3)
