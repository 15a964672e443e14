"""Synthetic maps: the same for the same seed, on any die grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabwafer.defects import SHIPPED_CLASSES
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED
from fabwafer.maps.synthetic import MIXABLE, make, sample

MIXES = [f"{first}+{second}" for first in MIXABLE for second in MIXABLE if first < second]


def failed_share(label: str, where: str) -> float:
    """The mean share of failed dies in the middle (within half the radius) or at the rim (beyond nine tenths)."""
    shares = []
    for seed in range(20):
        grid = make(np.random.default_rng(seed), label, 60, 60)
        y, x = np.indices(grid.shape)
        radius = np.hypot(x - 29.5, y - 29.5) / 30
        zone = (radius < 0.35) if where == "middle" else (radius > 0.92) & (grid != OUTSIDE)
        shares.append((grid[zone] == FAILED).mean())
    return float(np.mean(shares))


@settings(max_examples=60, deadline=None)
@given(
    label=st.sampled_from([*SHIPPED_CLASSES, *MIXES]),
    rows=st.integers(3, 300),
    columns=st.integers(3, 300),
    outside=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_pattern_fits_any_grid(label: str, rows: int, columns: int, outside: bool, seed: int) -> None:
    grid = make(np.random.default_rng(seed), label, rows, columns, outside=outside)
    assert grid.shape == (rows, columns)
    assert grid.dtype == np.uint8
    assert set(np.unique(grid)) <= {OUTSIDE, PASSED, FAILED}
    if not outside:
        assert OUTSIDE not in grid
    np.testing.assert_array_equal(grid, make(np.random.default_rng(seed), label, rows, columns, outside=outside))


def test_the_wafer_touches_all_four_sides() -> None:
    inside = make(np.random.default_rng(0), "none", 31, 52) != OUTSIDE
    assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    assert not inside[0, 0]


def test_a_sample_has_the_nine_classes_in_turn_and_depends_on_its_seed_alone() -> None:
    maps = sample(1, 20)
    assert [label for label, _ in maps] == [SHIPPED_CLASSES[number % 9] for number in range(20)]
    for (_, first), (_, again) in zip(maps, sample(1, 20), strict=True):
        np.testing.assert_array_equal(first, again)
    assert any(a.shape != b.shape or (a != b).any() for (_, a), (_, b) in zip(maps, sample(2, 20), strict=True))


def test_patterns_fail_where_their_names_say() -> None:
    background_middle, background_rim = failed_share("none", "middle"), failed_share("none", "rim")
    assert failed_share("Center", "middle") > background_middle + 0.3
    assert failed_share("Center", "rim") < background_rim + 0.05
    assert failed_share("Edge-Ring", "rim") > background_rim + 0.4
    assert failed_share("Edge-Ring", "middle") < background_middle + 0.05
    assert failed_share("Near-full", "middle") > 0.8
    assert failed_share("Center+Edge-Ring", "middle") > background_middle + 0.3
    assert failed_share("Center+Edge-Ring", "rim") > background_rim + 0.4


@pytest.mark.parametrize(("label", "rows"), [("Circle", 40), ("Center+none", 40), ("Center", 301), ("Center", 2)])
def test_what_cannot_be_made_is_refused(label: str, rows: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        make(np.random.default_rng(0), label, rows, 40)
