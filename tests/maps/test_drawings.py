"""Wafer maps are read however they are drawn, and other pictures are told from them.

These are a tenth of what benchmarks.drawings counts: 200 maps in each way of drawing, 50 other pictures.
"""

import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fabwafer.maps import colour_maps, synthetic
from fabwafer.maps.grid import FAILED, PASSED
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.stated_colours import StatedColours, StatedColoursError
from fabwafer.maps.wafermap import decode, read
from fabwafer.models.classifier import Classifier
from tests.support import wm811k
from tests.support.drawing_table import accepted, read_way
from tests.support.drawings import (
    BILINEAR,
    IN_DOUBT,
    MASKED,
    SCHEMES,
    UNKNOWN_SCHEMES,
    WAYS,
    Grid,
    binned,
    coloured,
    deep_colours,
    enlarged,
    failed_only,
    file,
    framed,
    grey,
    masked,
    scheme,
)
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
    if way in IN_DOUBT:  # a refused one goes to review as well
        assert len(result.refused) <= 0.05 * result.maps
        assert result.silent == []
    else:
        assert result.refused == []
        assert result.agreement >= 0.98


@pytest.mark.parametrize("way", WAYS)
def test_synthetic_maps_are_read_in_every_way_of_drawing(way: str) -> None:
    grids = [grid for _, grid in synthetic.sample(5, 18)]
    result = read_way(way, grids, None)
    assert result.refused == []
    assert result.silent == []
    if way in IN_DOUBT:
        assert len(result.doubted) == result.maps
    elif not way.startswith("two values"):  # which do not show where the wafer ends
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


def test_of_three_greys_the_furthest_from_the_outside_is_failed() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    for outside, passed, failed in ((20, 110, 240), (240, 110, 20), (255, 90, 60)):
        found = read(file(np.array([outside, passed, failed], np.uint8)[grid]))
        assert found.doubt == ""
        assert np.array_equal(found.grid, grid)


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_figure_is_read_by_the_colours_of_its_map_or_goes_to_review(name: str) -> None:
    grid = synthetic.sample(9, 1)[0][1]
    found = read(file(masked(grid, name)))
    if name in ("RdYlGn", "Set1"):  # whose ends do not tell which of them is failed
        assert "`fabwafer drawing`" in found.doubt
    else:
        assert found.doubt == ""
        assert np.array_equal(found.grid, grid)


def test_a_wafer_that_would_have_failed_for_the_most_part_goes_to_review_where_the_order_of_colours_alone_tells() -> (
    None
):
    """It may as well be drawn the other way round, as by `viridis_r`."""
    grid = synthetic.make(np.random.default_rng(1), "Edge-Ring", 40, 41)
    reverse = file(masked(np.array([0, 2, 1], np.uint8)[grid], "viridis"))
    assert "more passed dies than failed ones" in read(reverse).doubt


def test_green_and_red_are_certain_on_any_ground_and_for_any_yield() -> None:
    grid = synthetic.make(np.random.default_rng(1), "Near-full", 40, 41)
    for ground in ((255, 255, 255), (0, 0, 255), (68, 1, 84), (255, 0, 255)):
        for passed, failed in (
            ((0, 128, 0), (255, 0, 0)),
            ((144, 238, 144), (250, 128, 114)),
            ((0, 255, 0), (139, 0, 0)),
        ):
            found = read(file(np.array([ground, passed, failed], np.uint8)[grid]))
            assert found.doubt == ""
            assert np.array_equal(found.grid, grid)


def test_red_means_failed_beside_grey_unless_most_dies_would_have_failed() -> None:
    grid = synthetic.make(np.random.default_rng(1), "Scratch", 45, 40)
    white, grey_, crimson = (255, 255, 255), (190, 190, 190), (220, 20, 60)
    found = read(file(np.array([white, grey_, crimson], np.uint8)[grid]))
    assert found.doubt == ""
    assert np.array_equal(found.grid, grid)
    assert "more passed dies" in read(file(np.array([white, crimson, grey_], np.uint8)[grid])).doubt


@pytest.mark.parametrize("bins", [2, 3, 5, 8, 12])
def test_of_several_bins_the_most_frequent_is_passed_and_a_person_should_look(bins: int) -> None:
    grid = synthetic.make(np.random.default_rng(1), "Edge-Ring", 40, 41)
    found = read(file(binned(grid, np.random.default_rng(2), bins, "tab20")))
    assert np.array_equal(found.grid, grid)
    assert f"got {bins + 1} colours of dies" in found.doubt or bins == 2


def figure(grid: Grid, *, axes: bool, title: str = "", bar: bool = False) -> bytes:
    """What a notebook saves: a masked map, with what is drawn around it."""
    drawing = Figure()
    around = drawing.subplots()
    drawn = around.imshow(np.ma.masked_equal(grid, 0), cmap="viridis", interpolation="nearest")
    around.set_title(title)
    if not axes:
        around.axis("off")
    if bar:
        drawing.colorbar(drawn)
    buffer = io.BytesIO()
    drawing.savefig(buffer, bbox_inches=None if axes else "tight")
    return buffer.getvalue()


def test_a_title_apart_from_the_wafer_is_no_part_of_it() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    found = read(figure(grid, axes=False, title="Lot 7, wafer 12"))
    assert found.doubt == ""
    assert np.array_equal(found.grid, grid)


def test_a_figure_with_axes_is_refused_and_the_reason_says_what_to_leave_out() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    for more in (figure(grid, axes=True), figure(grid, axes=True, bar=True)):
        with pytest.raises(NotAWaferMapError, match="axes, frames and lines"):
            read(more)


def test_a_grid_of_few_large_dies_is_not_read_as_more_dies_from_a_jpeg() -> None:
    y, x = np.mgrid[:10, :10]
    grid = ((y - 4.5) ** 2 + (x - 4.5) ** 2 < 26).astype(np.uint8)
    grid[(grid == PASSED) & (np.random.default_rng(2).random(grid.shape) < 0.15)] = FAILED
    with pytest.raises(NotAWaferMapError, match="without enough dies"):
        decode(file(enlarged(grey(grid), 20), "JPEG", quality=85))


def test_16_bit_greys_keep_their_levels() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    for levels in ((0, 256, 511), (0, 1, 65535), (0, 127, 255), (0, 30000, 30001), (65535, 300, 0)):
        found = read(file(np.array(levels, np.uint16)[grid]))
        assert np.array_equal(found.grid, grid), levels
    smooth = np.asarray(Image.fromarray(grey(grid)).resize((224, 224), BILINEAR)).astype(np.uint16) * 8
    assert np.array_equal(decode(file(smooth)), grid)


def test_16_bit_colours_of_which_8_bits_are_lost_go_to_review() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    assert "upper 8 bits" in read(deep_colours(np.array([0, 256, 511], np.uint16)[grid])).doubt


def test_a_fourth_value_is_read_as_passed_and_a_person_should_look() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    values = grid.copy()
    values[np.nonzero(grid == PASSED)[0][:5], np.nonzero(grid == PASSED)[1][:5]] = 3
    found = read(file(values))
    assert np.array_equal(found.grid, grid)
    assert "got 3 as well" in found.doubt


def test_two_values_that_cover_most_of_the_wafer_go_to_review() -> None:
    grid = synthetic.make(np.random.default_rng(1), "Scratch", 45, 40)
    assert read(file(failed_only(grid))).doubt == ""
    swapped = np.where(grid == PASSED, 255, 0).astype(np.uint8)  # failed dies in the colour of the outside
    assert "in two colours" in read(file(swapped)).doubt
    assert (
        "in two colours" in read(file(np.array([(255, 255, 255), (0, 160, 0), (255, 255, 255)], np.uint8)[grid])).doubt
    )


def test_dies_in_one_colour_that_says_nothing_go_to_review() -> None:
    disc = (synthetic.make(np.random.default_rng(1), "none", 45, 40) > 0).astype(np.uint8)
    for colour, certain in (
        ((0, 160, 0), True),
        ((200, 0, 0), True),
        ((0, 0, 200), False),
        ((0x20, 0x90, 0x8C), False),
    ):
        found = read(file(enlarged(np.array([(255, 255, 255), colour], np.uint8)[disc], 4)))
        assert (found.doubt == "") is certain, colour
    purple_and_teal = np.array([(0x44, 1, 0x54), (0x20, 0x90, 0x8C)], np.uint8)  # 0 and 1 of 0 to 2 in viridis
    found = read(file(enlarged(purple_and_teal[disc], 4)))
    assert found.doubt == ""
    assert (found.grid != FAILED).all()


@pytest.mark.parametrize("name", [*SCHEMES, *UNKNOWN_SCHEMES])
def test_stated_colours_are_what_they_are_stated_to_be(name: str) -> None:
    grid = synthetic.make(np.random.default_rng(1), "Near-full", 40, 41)
    outside, passed, failed = ("#" + bytes(colour).hex() for colour in (SCHEMES | UNKNOWN_SCHEMES)[name])
    flat = file(enlarged(scheme(grid, name), 3))
    smooth = file(Image.fromarray(scheme(grid, name)).resize((224, 224), BILINEAR))
    lossy = file(enlarged(scheme(grid, name), 6), "JPEG", quality=90)
    for told in (
        {"outside": outside, "passed": passed, "failed": failed},
        {"passed": passed},
        {"failed": [failed, "#123456"]},
    ):
        for drawing in (flat, smooth, lossy):
            found = read(drawing, StatedColours.model_validate(told))
            assert found.doubt == ""
            assert np.array_equal(found.grid, grid)


def test_of_several_bins_the_passed_one_can_be_stated() -> None:
    grid = synthetic.make(np.random.default_rng(1), "Near-full", 40, 41)
    drawing = file(binned(grid, np.random.default_rng(2), 5, "tab10"))
    found = read(drawing, StatedColours(passed=("#1f77b4",)))
    assert found.doubt == ""
    assert np.array_equal(found.grid, grid)


def test_a_colour_that_was_not_stated_leaves_a_doubt() -> None:
    grid = synthetic.sample(9, 1)[0][1]
    found = read(file(scheme(grid, "white, blue, yellow")), StatedColours(passed=("#0000ff",), failed=("#ff0000",)))
    assert "got #ffff00 as well" in found.doubt


def test_a_statement_that_tells_nothing_is_refused_with_the_reason() -> None:
    for value, reason in (
        ({}, "expected the colours of passed dies, of failed dies, or both"),
        ({"passed": "green"}, "colours.passed.0: expected a colour as '#rrggbb', got 'green'"),
        ({"passed": "#000", "failed": "#000000"}, "expected different colours"),
        ({"passed": "#000", "bad": "#fff"}, "colours.bad"),
        ("[]", "colours"),
        ("no JSON", "colours"),
    ):
        with pytest.raises(StatedColoursError, match=reason):
            StatedColours.read(value)


def test_the_colours_of_maps_are_those_that_matplotlib_draws() -> None:
    for name, table in colour_maps.MAPS.items():
        drawn = matplotlib.colormaps[name]([0.0, 0.5, 1.0], bytes=True)[:, :3]
        assert np.abs(drawn.astype(int) - [list(bytes.fromhex(colour)) for colour in table.split()]).max() <= 1, name
    for name, table in colour_maps.CYCLES.items():
        cycle = matplotlib.colormaps[name]
        drawn = np.array([*(cycle(place, bytes=True)[:3] for place in range(3)), *cycle([0.5, 1.0], bytes=True)[:, :3]])
        assert np.abs(drawn.astype(int) - [list(bytes.fromhex(colour)) for colour in table.split()]).max() <= 1, name


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
