"""Image files are judged by their headers, before anything decodes them."""

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fabwafer.maps.image_file import (
    MAX_BYTES,
    MAX_CHUNKS,
    MAX_METADATA_CHUNKS,
    MAX_PIXELS,
    MAX_SCANS,
    BadImageError,
    ImageInfo,
    probe,
)

MANY_SCANS = Path(__file__).resolve().parents[3] / "shared" / "samples" / "hostile" / "many-scans.jpg"


def _png(width: int = 30, height: int = 20, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


def _jpeg(width: int = 30, height: int = 20, **options: object) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def _bomb(side: int) -> bytes:
    """A small file of a huge black picture: what it would decode to, it does not say by its bytes."""
    body = zlib.compress(bytes(1024) * 64, 9)
    return _header(side, side) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def test_a_png_is_known_by_format_and_size() -> None:
    assert probe(_png(31, 17)) == ImageInfo("PNG", 31, 17)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_a_jpeg_is_known_by_format_and_size(options: dict[str, bool]) -> None:
    assert probe(_jpeg(31, 17, **options)) == ImageInfo("JPEG", 31, 17)


def _with_scans(more: int) -> bytes:
    """A progressive JPEG whose last scan is repeated, with its data."""
    whole = _jpeg(progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * more + whole[-2:]


def test_a_jpeg_of_the_usual_scans_passes_and_one_of_too_many_is_refused_by_their_number() -> None:
    usual = _with_scans(0).count(b"\xff\xda")
    assert usual == 10
    assert probe(_with_scans(MAX_SCANS - usual)).format == "JPEG"
    with pytest.raises(BadImageError, match=f"at most {MAX_SCANS} scans, got more") as refused:
        probe(_with_scans(MAX_SCANS - usual + 1))
    assert refused.value.code == "too_many_pixels"


def test_a_jpeg_whose_scans_together_have_too_many_pixels_is_refused() -> None:
    def of_size(side: int) -> bytes:
        whole = bytearray(_jpeg(progressive=True))
        frame = whole.index(b"\xff\xc2")
        whole[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
        return bytes(whole)

    assert probe(of_size(2_500)).width == 2_500
    with pytest.raises(BadImageError, match=r"pixels in all its scans, got 10 scans or more of 2600 x 2600") as refused:
        probe(of_size(2_600))
    assert refused.value.code == "too_many_pixels"


@pytest.mark.skipif(not MANY_SCANS.is_file(), reason="needs the sample in ../shared/samples")
def test_a_small_file_that_takes_seconds_to_decode_is_refused_at_once() -> None:
    data = MANY_SCANS.read_bytes()
    began = time.perf_counter()
    with pytest.raises(BadImageError, match="in all its scans"):
        probe(data)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("place", [b"\xff\xda", b"\xff\xd9"], ids=["before the pixels", "after them"])
def test_a_jpeg_of_two_frames_is_refused(place: bytes) -> None:
    whole = _jpeg()
    frame = whole.index(b"\xff\xc0")
    length = 2 + int.from_bytes(whole[frame + 2 : frame + 4], "big")
    at = whole.rindex(place)
    with pytest.raises(BadImageError, match="one frame, got a second"):
        probe(whole[:at] + whole[frame : frame + length] + whole[at:])


def test_what_looks_like_an_end_within_a_comment_between_scans_is_none() -> None:
    whole = _jpeg(progressive=True)
    last = whole.rindex(b"\xff\xda")
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"\xff\xd9\xff\xd9"
    assert probe(whole[:last] + comment + whole[last:]).format == "JPEG"
    with pytest.raises(BadImageError, match="cut off"):
        probe(whole[:last] + comment)


def test_a_jpeg_of_too_many_segments_is_refused() -> None:
    with pytest.raises(BadImageError, match="at most 2000 segments"):
        probe(_jpeg()[:2] + b"\xff\xfe\0\2" * 2_000 + _jpeg()[2:])


@pytest.mark.parametrize("filling", [b"\xff\x00", b"\xff\xd0", b"\xff", b"\x55"], ids=bytes.hex)
def test_the_largest_jpeg_is_walked_through_at_once_whatever_its_pixels(filling: bytes) -> None:
    whole = _jpeg()
    large = whole[:-2] + filling * ((MAX_BYTES - len(whole)) // len(filling)) + whole[-2:]
    began = time.perf_counter()
    assert probe(large).format == "JPEG"
    assert time.perf_counter() - began < 1


def _png_with(chunks: bytes) -> bytes:
    return _png()[:33] + chunks + _png()[33:]


def test_a_png_of_too_many_chunks_is_refused() -> None:
    usual = _png()
    assert probe(_png_with(_chunk(b"abCd", b"") * (MAX_CHUNKS - 3))) == probe(usual)
    for many in (MAX_CHUNKS - 2, 100_000):
        with pytest.raises(BadImageError, match=f"at most {MAX_CHUNKS} chunks, got more"):
            probe(_png_with(_chunk(b"abCd", b"") * many))


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"])
def test_a_png_of_too_much_text_and_profiles_is_refused(kind: bytes) -> None:
    assert probe(_png_with(_chunk(kind, b"x\0") * MAX_METADATA_CHUNKS)).format == "PNG"
    assert probe(_png_with(_chunk(kind, bytes(1024 * 1024)))).format == "PNG"
    for many in (_chunk(kind, b"x\0") * (MAX_METADATA_CHUNKS + 1), _chunk(kind, bytes(600_000)) * 2):
        with pytest.raises(BadImageError, match="bytes of text and profiles, got "):
            probe(_png_with(many))


def test_bytes_after_the_end_of_a_picture_harm_nobody() -> None:
    assert probe(_jpeg() + b"appended by a camera").format == "JPEG"
    assert probe(_png() + b"appended by a camera").format == "PNG"


def test_nothing_is_no_picture() -> None:
    with pytest.raises(BadImageError, match="no bytes at all"):
        probe(b"")


@pytest.mark.parametrize("whole", [_png(), _jpeg(), _jpeg(progressive=True)], ids=["PNG", "JPEG", "progressive JPEG"])
def test_a_picture_cut_off_anywhere_is_refused(whole: bytes) -> None:
    for length in range(1, len(whole)):
        with pytest.raises(BadImageError):
            probe(whole[:length])


def test_a_cut_off_picture_is_named_as_such() -> None:
    for part in (_png()[:5], _png()[:30], _png()[:-1], _jpeg()[:2], _jpeg()[:40], _jpeg()[:-1]):
        with pytest.raises(BadImageError, match="cut off after"):
            probe(part)


def test_a_changed_bit_in_a_png_is_noticed() -> None:
    whole = _png()
    for place in range(8, len(whole) - 12):
        broken = bytearray(whole)
        broken[place] ^= 1
        with pytest.raises(BadImageError):
            probe(bytes(broken))


def test_a_broken_checksum_is_named_with_its_chunk() -> None:
    broken = bytearray(_png())
    broken[20] ^= 255
    with pytest.raises(BadImageError, match="wrong checksum in its chunk IHDR"):
        probe(bytes(broken))


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_pixel_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(BadImageError, match=f"at most {MAX_PIXELS} pixels, got {side} x {side}"):
        probe(_bomb(side))


def test_a_jpeg_that_states_too_many_pixels_is_refused() -> None:
    whole = bytearray(_jpeg())
    frame = whole.index(b"\xff\xc0")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    with pytest.raises(BadImageError, match="20000 x 20000"):
        probe(bytes(whole))


def test_the_limits_themselves_are_allowed() -> None:
    assert probe(_bomb(4_000)).width ** 2 == MAX_PIXELS
    filled = _header(8, 8) + _chunk(b"IDAT", b"x") + _chunk(b"IEND", b"")
    assert probe(filled + bytes(MAX_BYTES - len(filled))).format == "PNG"
    with pytest.raises(BadImageError, match=f"at most {MAX_BYTES} bytes, got {MAX_BYTES + 1}"):
        probe(filled + bytes(MAX_BYTES + 1 - len(filled)))


@pytest.mark.parametrize("name", ["GIF", "BMP", "TIFF"])
def test_another_format_is_named_beside_the_two_that_are_read(name: str) -> None:
    file = io.BytesIO()
    Image.new("L", (9, 9)).save(file, name)
    with pytest.raises(BadImageError, match=f"expected a PNG or JPEG image, got a {name} file"):
        probe(file.getvalue())


@pytest.mark.parametrize(("depth", "colour"), [(3, 0), (16, 3), (4, 2), (8, 5)])
def test_a_png_of_an_unknown_kind_is_refused(depth: int, colour: int) -> None:
    with pytest.raises(BadImageError, match="known kind"):
        probe(_header(9, 9, depth, colour) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""))


def test_a_png_without_pixels_is_refused() -> None:
    with pytest.raises(BadImageError, match="IDAT"):
        probe(_header(9, 9) + _chunk(b"IEND", b""))
    with pytest.raises(BadImageError, match="0 x 9"):
        probe(_header(0, 9) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""))


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", _jpeg()[:60], _png()[:40]])
)
def test_whatever_the_bytes_the_answer_is_a_sentence_or_a_size(tail: bytes, start: bytes) -> None:
    message = "expected a picture"
    try:
        info = probe(start + tail)
        assert 0 < info.width * info.height <= MAX_PIXELS
    except BadImageError as error:
        message = str(error)
    assert message.startswith("expected ")
