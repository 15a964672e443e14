"""Wafer maps: native drawings, counting, and scaling to the network's input."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fabwafer.maps import synthetic
from fabwafer.maps.counts import MapCounts
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED, count
from fabwafer.maps.image_file import BadImageError
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.scaling import INPUT_SIZE, scale
from fabwafer.maps.wafermap import decode, encode

Grid = NDArray[np.uint8]


def disc(rows: int, columns: int) -> Grid:
    """A wafer on which every die passed."""
    y, x = (2 * np.arange(n) + 1 - n for n in (rows, columns))
    inside = (y[:, None] / rows) ** 2 + (x[None, :] / columns) ** 2 <= 1
    return np.where(inside, PASSED, OUTSIDE).astype(np.uint8)


def _map(seed: int = 3, rows: int = 31, columns: int = 27) -> Grid:
    return synthetic.make(np.random.default_rng(seed), "Loc", rows, columns)


def _file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# -- native drawings -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(20, 120), st.integers(20, 120), st.integers(1, 9))
def test_what_is_encoded_is_decoded_again(seed: int, rows: int, columns: int, times: int) -> None:
    rng = np.random.default_rng(seed)
    grid = disc(rows, columns)
    grid[(rng.random(grid.shape) < rng.uniform(0.01, 0.9)) & (grid == PASSED)] = FAILED
    grid[rows // 2, columns // 2] = FAILED
    grid[rows // 2, columns // 2 + 1] = PASSED
    assert np.array_equal(decode(encode(grid, scale=times)), grid)


def test_a_wafer_without_failures_is_one() -> None:
    assert np.array_equal(decode(encode(disc(53, 58))), disc(53, 58))


def test_a_wafer_without_a_passed_die_is_one() -> None:
    grid = disc(26, 26) * np.uint8(2)
    assert np.array_equal(decode(encode(grid)), grid)


def test_a_full_rectangle_without_outside_is_read_as_drawn() -> None:
    grid = np.ones((40, 31), np.uint8)
    grid[np.random.default_rng(2).random(grid.shape) < 0.1] = FAILED
    assert np.array_equal(decode(encode(grid)), grid)


def test_failed_dies_alone_are_put_on_a_wafer() -> None:
    grid = _map()
    read = decode(_file(Image.fromarray(np.where(grid == FAILED, 255, 0).astype(np.uint8))))
    assert np.array_equal(read == FAILED, grid == FAILED)
    assert np.mean((read == OUTSIDE) == (grid == OUTSIDE)) > 0.95


def test_a_16_bit_drawing_is_read() -> None:
    grid = _map()
    for values in ([0, 32_767, 65_535], [0, 1, 2]):
        assert np.array_equal(decode(_file(Image.fromarray(np.array(values, np.uint16)[grid]))), grid)


def test_an_interlaced_or_animated_png_is_read() -> None:
    grid = _map()
    pixels = Image.fromarray(np.array([0, 127, 255], np.uint8)[grid])
    assert np.array_equal(decode(_file(pixels, save_all=True, append_images=[pixels.rotate(90)])), grid)
    assert np.array_equal(decode(_interlaced(np.asarray(pixels))), grid)


def _interlaced(pixels: NDArray[np.uint8]) -> bytes:
    """An Adam7 PNG, which Pillow does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    lines = b"".join(
        b"\0" + line.tobytes() for y, x, down, across in passes for line in pixels[y::down, x::across] if line.size
    )
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_a_cmyk_jpeg_is_read() -> None:
    grid = _map()
    colours = np.array([(255, 255, 255), (0, 160, 0), (200, 0, 0)], np.uint8)[grid].repeat(8, 0).repeat(8, 1)
    read = decode(_file(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=95))
    assert np.array_equal(read, grid)


def test_reading_twice_gives_the_same() -> None:
    image = Image.fromarray(np.array([0, 127, 255], np.uint8)[_map()]).resize((224, 224), Image.Resampling.BILINEAR)
    data = _file(image, "JPEG", quality=80)
    assert np.array_equal(decode(data), decode(data))


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_cut_off_picture_is_a_bad_image() -> None:
    whole = encode(_map())
    for length in (0, 1, 7, 8, 20, 33, 40, len(whole) // 2, len(whole) - 12, len(whole) - 1):
        with pytest.raises(BadImageError, match=r"^expected "):
            decode(whole[:length])


def test_a_picture_with_whole_chunks_but_too_few_pixels_is_a_bad_image() -> None:
    body = zlib.compress(bytes(10))
    header = struct.pack(">IIBBBBB", 50, 50, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    with pytest.raises(BadImageError, match="that can be decoded"):
        decode(data)


def test_refusing_a_bomb_changes_nothing_in_pillow() -> None:
    before = Image.MAX_IMAGE_PIXELS
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(BadImageError, match="20000 x 20000"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + bytes(100))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 5), (200, 1), (1, 3000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_tiny_or_thin_picture_is_no_wafer_map(size: tuple[int, int], kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for image in (Image.new("L", size), Image.fromarray(noise)):
        with pytest.raises(NotAWaferMapError, match=r"^expected a wafer map"):
            decode(_file(image, kind))


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10**6), st.integers(1, 90), st.integers(1, 90), st.integers(2, 300), st.sampled_from(["PNG", "JPEG"])
)
def test_noise_is_answered_with_a_sentence(seed: int, height: int, width: int, levels: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    noise = (rng.integers(0, levels, (height, width)) * 255 // levels).astype(np.uint8)
    message = "expected a wafer map"
    try:  # a small patch of noise in three levels may be a full rectangle of dies
        assert set(np.unique(decode(_file(Image.fromarray(noise), kind)))) <= {OUTSIDE, PASSED, FAILED}
    except NotAWaferMapError as error:
        message = str(error)
    assert message.startswith("expected a wafer map")


# -- counting --------------------------------------------------------------------------------------------------------


def test_failed_dies_that_touch_at_a_corner_are_one_region() -> None:
    grid = disc(20, 21)
    for place in ((5, 5), (6, 6), (7, 5), (10, 10), (15, 8), (15, 9)):
        grid[place] = FAILED
    passed = int((disc(20, 21) == PASSED).sum()) - 6
    assert count(grid) == MapCounts(rows=20, columns=21, passed=passed, failed=6, regions=3, largest=3)


def test_a_map_without_failures_has_no_regions() -> None:
    counts = count(disc(12, 12))
    assert (counts.failed, counts.regions, counts.largest) == (0, 0, 0)


# -- scaling ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(st.integers(15, 300), st.integers(15, 300), st.data())
def test_a_single_failed_die_stays_visible(rows: int, columns: int, data: st.DataObject) -> None:
    grid = disc(rows, columns)
    dies = np.argwhere(grid == PASSED)
    row, column = dies[data.draw(st.integers(0, len(dies) - 1))]
    grid[row, column] = FAILED
    cells = scale(grid)
    assert cells[1].sum() >= 1
    assert cells[1, min(63, int((row + 0.5) * 64 / rows)), min(63, int((column + 0.5) * 64 / columns))] == 1
    assert cells[0].max() > 0


@settings(deadline=None, max_examples=100)
@given(st.integers(15, 300), st.integers(15, 300), st.floats(0, np.pi))
def test_a_scratch_one_die_wide_stays_whole(rows: int, columns: int, angle: float) -> None:
    grid = disc(rows, columns)
    along = np.linspace(-0.7, 0.7, 4 * max(rows, columns))
    y = ((1 + along * np.sin(angle)) * rows / 2).astype(int)
    x = ((1 + along * np.cos(angle)) * columns / 2).astype(int)
    grid[y, x] = FAILED
    marked = scale(grid)[1]
    for row, column in zip(y, x, strict=True):
        assert marked[min(63, int((row + 0.5) * 64 / rows)), min(63, int((column + 0.5) * 64 / columns))] == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(15, 300), st.integers(15, 300))
def test_scaling_keeps_areas(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    grid = disc(rows, columns)
    grid[(grid == PASSED) & (rng.random(grid.shape) < 0.2)] = FAILED
    failed, marked, inside = scale(grid)
    assert inside.mean() == pytest.approx((grid != OUTSIDE).mean(), abs=1e-4)
    assert (failed * inside).mean() == pytest.approx((grid == FAILED).mean(), abs=1e-4)
    assert ((marked == 1) == (failed > 0)).all()
    for channel in (failed, marked, inside):
        assert channel.min() >= 0
        assert channel.max() <= 1


def test_margins_do_not_change_the_input() -> None:
    grid = _map()
    assert np.array_equal(scale(np.pad(grid, ((3, 9), (0, 4)))), scale(grid))


def test_a_grid_of_the_input_size_is_taken_as_it_is() -> None:
    grid = disc(INPUT_SIZE, INPUT_SIZE)
    grid[30:34, 10:50] = FAILED
    failed, marked, inside = scale(grid)
    assert np.array_equal(failed, grid == FAILED)
    assert np.array_equal(marked, grid == FAILED)
    assert np.array_equal(inside, grid != OUTSIDE)


def test_a_grid_without_dies_scales_to_nothing() -> None:
    assert not scale(np.zeros((30, 30), np.uint8)).any()
