"""Wafer maps are read however they are drawn, and other pictures are told from them.

These are a tenth of what benchmarks.drawings counts: 200 maps in each way of drawing, 50 other pictures.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabwafer.maps import synthetic
from fabwafer.maps.grid import FAILED, PASSED
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.wafermap import decode
from fabwafer.models.classifier import Classifier
from tests.support import wm811k
from tests.support.drawing_table import accepted, read_way
from tests.support.drawings import SCHEMES, WAYS, Grid, coloured, file, framed, grey
from tests.support.non_wafers import KINDS

MODEL = Path(__file__).resolve().parents[2] / "model-store" / "wafer"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(MODEL)


@pytest.fixture(scope="module")
def real_maps() -> list[Grid]:
    rows = np.random.default_rng(811).choice(len(wm811k.labels()), 200, replace=False)
    return wm811k.maps(rows)


@pytest.mark.parametrize("way", WAYS)
def test_real_maps_are_read_in_every_way_of_drawing(way: str, real_maps: list[Grid], classifier: Classifier) -> None:
    result = read_way(way, real_maps, classifier)
    assert result.refused == []
    assert result.agreement >= 0.98


@pytest.mark.parametrize("way", WAYS)
def test_synthetic_maps_are_read_in_every_way_of_drawing(way: str) -> None:
    grids = [grid for _, grid in synthetic.sample(5, 18)]
    result = read_way(way, grids, None)
    assert result.refused == []
    if not way.startswith("two values"):  # which do not show where the wafer ends
        assert result.exact >= 15  # JPEG's colour is coarser than dies of two pixels


def test_other_pictures_are_not_taken_for_wafers() -> None:
    taken = [name for kind in KINDS for name in accepted(kind, 10, 2)]
    assert taken == []


def test_an_icon_is_not_a_wafer() -> None:
    """A sign in white lines on a shaded square, as a device in the field sent one."""
    side = np.linspace(60, 140, 150)
    pixels = np.zeros((150, 150, 3), np.uint8)
    pixels[..., 1] = (side[:, None] + side[None, :]) / 2
    pixels[40:44, 30:110] = pixels[40:110, 30:34] = pixels[106:110, 30:110] = 255
    with pytest.raises(NotAWaferMapError):
        decode(file(pixels))


def test_stripes_in_the_native_greys_are_not_a_wafer() -> None:
    with pytest.raises(NotAWaferMapError, match="outline"):
        decode(file((np.indices((90, 90)).sum(axis=0) // 3 % 3 * 127).astype(np.uint8)))


def test_the_margin_may_have_a_colour_of_its_own() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    pixels = np.pad(
        coloured(grid, "viridis").repeat(4, 0).repeat(4, 1), ((20, 7), (9, 30), (0, 0)), constant_values=255
    )
    assert np.array_equal(decode(file(pixels)), grid)


def test_failed_is_furthest_from_the_outside_in_luminance() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    dark, middle, light = (20, 20, 60), (110, 120, 130), (240, 240, 200)
    for outside, passed, failed in ((dark, middle, light), (light, middle, dark)):
        pixels = np.array([outside, passed, failed], np.uint8)[grid]
        assert np.array_equal(decode(file(pixels)), grid)


@pytest.mark.parametrize("name", SCHEMES)
def test_colours_mean_the_same_smoothed_as_flat(name: str) -> None:
    grid = synthetic.sample(9, 1)[0][1]
    image = Image.fromarray(np.array(SCHEMES[name], np.uint8)[grid]).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(decode(file(image)), grid)


def test_transparent_outside_is_outside_whatever_colour_hides_in_it() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    for hidden in ((0, 0, 0), (255, 255, 255), (0, 160, 0)):
        colours = np.array([(*hidden, 0), (0, 160, 0, 255), (230, 30, 30, 255)], np.uint8)
        assert np.array_equal(decode(file(colours[grid])), grid)


def test_a_wide_margin_leaves_the_wafer_as_it_is() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    assert np.array_equal(decode(file(framed(grey(grid), np.random.default_rng(4), 400))), grid)


def test_a_large_picture_is_read() -> None:
    grid = synthetic.make(np.random.default_rng(1), "Edge-Ring", 40, 41)
    image = Image.fromarray(grey(grid)).resize((3000, 3000), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(file(image)), grid)


def test_a_drawing_in_two_values_shows_what_failed() -> None:
    grid = synthetic.make(np.random.default_rng(1), "Scratch", 45, 40)
    read = decode(file(np.where(grid == FAILED, 0, 255).astype(np.uint8)))
    assert np.array_equal(read == FAILED, grid == FAILED)
    assert (read == PASSED).any()
