"""What can be told about an image file without decoding it.

Every image message passes here before anything decodes it: a file that would fill the memory or take seconds to decode
is refused (a decoder written in C cannot be interrupted), and a file that was cut off on its way is named as such. Only
the standard library is used.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from fabwafer.errors import FabwaferError

MAX_BYTES = 2 * 1024 * 1024
MAX_PIXELS = 16_000_000
MAX_SCANS = 100
"""Scans of a JPEG; encoders write at most about a dozen. Each scan may pass over all pixels again."""
MAX_SCANNED_PIXELS = 64_000_000
"""Scans times pixels of a JPEG, which its time in the decoder grows with. A progressive file of 10 scans may have 6.4
million pixels, a baseline file with one scan for each colour the most pixels that are accepted at all."""
MAX_SEGMENTS = 2_000
"""Segments of a JPEG: each of 100 scans may have 10 segments of tables, and 64 of metadata would fill the file."""
MAX_CHUNKS = 4_096
"""Chunks of a PNG; each takes the decoder some microseconds. libpng writes 8 KiB of pixels in a chunk, which makes 256
of them in the largest file; 4,096 leave room for encoders that write 512 bytes."""
MAX_METADATA_CHUNKS = 256
"""Chunks of text and profiles in a PNG. Each may unpack to 1 MB, which takes 2 ms; tools write a few dozen."""
MAX_METADATA_BYTES = 1024 * 1024
"""Bytes of a PNG's text and profiles: half of the largest file; a colour profile has some hundred KB at most."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"})
# Bit depths that PNG allows for each colour type (PNG specification, third edition, table 12).
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# Start-of-frame markers: all of FFC0..FFCF but DHT (C4), JPG (C8) and DAC (CC) (ITU-T T.81, table B.1).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
# The next marker, as the decoder looks for it: not what stands in the pixels' own data (a stuffed 00, a restart
# D0..D7), and no marker without a segment (01, D8). FF may be repeated before a marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_OTHER_FORMATS = ((b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"%PDF", "PDF"))


class BadImageError(FabwaferError):
    """The bytes cannot be an image that is accepted here; the message says what was expected and what came.

    Args:
        message: The sentence.
        code: Which of a few kinds it is, to count by: unreadable, truncated, too_many_pixels or too_large.
    """

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ImageInfo:
    """What the header says: format ("PNG" or "JPEG"), width and height in pixels."""

    format: str
    width: int
    height: int


def probe(data: bytes) -> ImageInfo:
    """Check an image file without decoding its pixels.

    Args:
        data: the file's bytes, a PNG or a JPEG.

    Returns:
        Format and size as the header states them.

    Raises:
        BadImageError: neither PNG nor JPEG, broken or cut off, more than `MAX_BYTES` or `MAX_PIXELS`, or more scans,
            segments or chunks than an image needs.
    """
    if not data:
        raise BadImageError("expected a PNG or JPEG image, got no bytes at all")
    if len(data) > MAX_BYTES:
        raise BadImageError(f"expected an image of at most {MAX_BYTES} bytes, got {len(data)}", "too_large")
    if data.startswith(_PNG_SIGNATURE):
        return _probe_png(data)
    if data.startswith(_JPEG_SIGNATURE):
        return _probe_jpeg(data)
    if _PNG_SIGNATURE.startswith(data[:8]) or _JPEG_SIGNATURE.startswith(data[:3]):
        raise BadImageError(f"expected a whole PNG or JPEG image, got one cut off after {len(data)} bytes", "truncated")
    for start, name in _OTHER_FORMATS:
        if data.startswith(start):
            raise BadImageError(f"expected a PNG or JPEG image, got a {name} file")
    raise BadImageError(f"expected a PNG or JPEG image, got {len(data)} bytes that start with {data[:8].hex(' ')}")


def _info(name: str, width: int, height: int) -> ImageInfo:
    if width == 0 or height == 0:
        raise BadImageError(f"expected a {name} image with pixels, got one of {width} x {height}")
    if width * height > MAX_PIXELS:
        raise BadImageError(
            f"expected an image of at most {MAX_PIXELS} pixels, got {width} x {height} = {width * height}",
            "too_many_pixels",
        )
    return ImageInfo(name, width, height)


def _probe_png(data: bytes) -> ImageInfo:
    info: ImageInfo | None = None
    pixels = False
    chunks = metadata = metadata_bytes = 0
    view = memoryview(data)
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise BadImageError(f"expected a PNG image of at most {MAX_CHUNKS} chunks, got more")
        if kind in _PNG_METADATA:
            metadata += 1
            metadata_bytes += length
            if metadata > MAX_METADATA_CHUNKS or metadata_bytes > MAX_METADATA_BYTES:
                raise BadImageError(
                    f"expected a PNG image with at most {MAX_METADATA_CHUNKS} chunks and {MAX_METADATA_BYTES} bytes of "
                    f"text and profiles, got {metadata} chunks or more of {metadata_bytes} bytes together"
                )
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise BadImageError(f"expected an unbroken PNG image, got a wrong checksum in its chunk {_name(kind)}")
        if info is None:
            info = _png_header(kind, view[at + 8 : end - 4])
        elif kind == b"IDAT":
            pixels = True
        elif kind == b"IEND":
            if not pixels:
                raise BadImageError("expected a PNG image with pixels, got one without a chunk IDAT")
            return info
        at = end
    raise BadImageError(f"expected a whole PNG image, got one cut off after {len(data)} bytes", "truncated")


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


def _png_header(kind: bytes, body: memoryview) -> ImageInfo:
    if kind != b"IHDR" or len(body) != 13:
        raise BadImageError(f"expected a PNG image that begins with a header of 13 bytes, got chunk {_name(kind)}")
    width, height, depth, colour = struct.unpack_from(">IIBB", body)
    if depth not in _PNG_DEPTHS.get(colour, ()):
        raise BadImageError(f"expected a PNG image of a known kind, got colour type {colour} with {depth} bits")
    return _info("PNG", width, height)


def _probe_jpeg(data: bytes) -> ImageInfo:
    """Walk over all segments and scans up to the end of the image; what cameras append after it harms nobody."""
    info: ImageInfo | None = None
    scans = segments = 0
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        if not scans and data[at] != 0xFF:
            raise BadImageError(f"expected an unbroken JPEG image, got no marker at byte {at}")
        at, marker = found.end(), found[1][0]
        if marker == _JPEG_END:
            if info is None or not scans:
                raise BadImageError("expected a JPEG image with pixels, got one that ends before them")
            return info
        if at + 2 > len(data):
            break
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2:
            raise BadImageError(f"expected an unbroken JPEG image, got a segment of {length} bytes at byte {at - 2}")
        segments += 1
        if segments > MAX_SEGMENTS:
            raise BadImageError(f"expected a JPEG image of at most {MAX_SEGMENTS} segments, got more")
        if marker in _JPEG_FRAMES:
            if info is not None:
                raise BadImageError("expected a JPEG image of one frame, got a second one")
            if at + 7 > len(data):
                break
            height, width = struct.unpack_from(">HH", data, at + 3)
            info = _info("JPEG", width, height)
        elif marker == _JPEG_SCAN:
            if info is None:
                raise BadImageError("expected a JPEG image that states its size, got pixels before it")
            scans += 1
            _check_scans(scans, info)
        at += length
    raise BadImageError(f"expected a whole JPEG image, got one cut off after {len(data)} bytes", "truncated")


def _check_scans(scans: int, info: ImageInfo) -> None:
    if scans > MAX_SCANS:
        raise BadImageError(f"expected a JPEG image of at most {MAX_SCANS} scans, got more", "too_many_pixels")
    if scans * info.width * info.height > MAX_SCANNED_PIXELS:
        raise BadImageError(
            f"expected a JPEG image of at most {MAX_SCANNED_PIXELS} pixels in all its scans, "
            f"got {scans} scans or more of {info.width} x {info.height}",
            "too_many_pixels",
        )
