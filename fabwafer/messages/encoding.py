"""Base64 of image files, read in one way wherever it comes from: MQTT messages and requests to the model server."""

import base64
import re
from typing import Final

from fabwafer.errors import FabwaferError
from fabwafer.maps.image_file import MAX_BYTES, BadImageError

_LONGEST: Final = -(-MAX_BYTES // 3) * 4
_DATA_URI: Final = re.compile(r"\s*data:[^,]{0,200};\s*base64\s*,", re.IGNORECASE)
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9+/_=\s-]")
_STANDARD: Final = str.maketrans("-_", "+/")
_EXPECTED: Final = "expected base64 of an image file"


class EncodingError(FabwaferError):
    """A text that is not base64; the message says what was expected and what came."""


def decoded_base64(text: str) -> bytes:
    """Return the bytes of an image file from its base64.

    White space and line breaks of any kind are skipped, the letters - and _ of URLs are taken, padding may be missing,
    and the text may be a data URI (`data:image/png;base64,...`).

    Raises:
        EncodingError: The text is not base64.
        BadImageError: It would be more than `MAX_BYTES`, with the code too_large.
    """
    if len(text) <= _LONGEST and len(text) % 4 == 0 and not text.endswith("==="):  # b64decode forgives too many
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:  # not plain base64: see below what it is
            pass
    uri = _DATA_URI.match(text)
    start = uri.end() if uri else 0
    letters = "".join(text[start:].split())
    data = letters.rstrip("=")
    if len(letters) > _LONGEST:
        raise BadImageError(
            f"expected an image of at most {MAX_BYTES} bytes, got about {len(data) * 3 // 4}", "too_large"
        )
    _check(text, start, data, len(letters) - len(data))
    return base64.b64decode(data.translate(_STANDARD) + "=" * (-len(data) % 4), validate=True)


def _check(text: str, start: int, data: str, padding: int) -> None:
    if foreign := _FOREIGN.search(text, start):
        raise EncodingError(f"{_EXPECTED}, got {foreign[0]!r} as character {foreign.start() + 1}")
    if "=" in data:
        raise EncodingError(f"{_EXPECTED}, got '=' before its end, as character {text.index('=', start) + 1}")
    if len(data) % 4 == 1:
        raise EncodingError(f"{_EXPECTED}, got {len(data)} letters, one more or less than whole bytes have")
    if padding > -len(data) % 4:
        place = text.index("=", start) + 1
        raise EncodingError(
            f"{_EXPECTED}, got {padding} '=' from character {place} on where {-len(data) % 4} complete it"
        )
