"""What can be told about an image file without decoding it.

Every image message passes here before anything decodes it, so a file that would fill the memory is refused by its
header, and a file that was cut off on its way is named as such. Only the standard library is used.
"""

import struct
import zlib
from dataclasses import dataclass

from fabwafer.errors import FabwaferError

MAX_BYTES = 2 * 1024 * 1024
MAX_PIXELS = 16_000_000

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bit depths that PNG allows for each colour type (PNG specification, third edition, table 12).
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# Start-of-frame markers: all of FFC0..FFCF but DHT (C4), JPG (C8) and DAC (CC) (ITU-T T.81, table B.1).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, b"\xff\xd9"
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
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
        BadImageError: neither PNG nor JPEG, broken or cut off, more than `MAX_BYTES`, or more than `MAX_PIXELS`.
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
    view = memoryview(data)
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
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
    info: ImageInfo | None = None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise BadImageError(f"expected an unbroken JPEG image, got no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF or marker in _JPEG_BARE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _JPEG_FRAMES:
            if at + 9 > len(data):
                break
            height, width = struct.unpack_from(">HH", data, at + 5)
            info = _info("JPEG", width, height)
        elif marker == _JPEG_SCAN:
            if info is None:
                raise BadImageError("expected a JPEG image that states its size, got pixels before it")
            # Bytes after the end of the image are common (cameras append data there) and harm nobody.
            if data.find(_JPEG_END, at + 2 + length) < 0:
                break
            return info
        if length < 2:
            raise BadImageError(f"expected an unbroken JPEG image, got a segment of {length} bytes at byte {at}")
        at += 2 + length
    raise BadImageError(f"expected a whole JPEG image, got one cut off after {len(data)} bytes", "truncated")
