"""The rows of an exported DynamoDB table, one at a time, however many there are.

Two forms are read. An export to S3 in the format DynamoDB JSON is a folder with gzipped files of lines
`{"Item": {...}}`. `aws dynamodb scan` prints one document, `{"Items": [...]}`.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO, cast

from fabwafer.errors import FabwaferError
from fabwafer.messages.refusals import shown

LONGEST_ROW: Final = 1024 * 1024
"""Characters of a row. DynamoDB holds at most 400 KB in one, which are up to 550 KB in base64."""

_CHUNK: Final = 64 * 1024
_GZIP: Final = b"\x1f\x8b"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_OF_SCAN: Final = re.compile(r'\s*\{\s*"(?:Items|Count|ScannedCount|ConsumedCapacity|LastEvaluatedKey|NextToken)"\s*:')
"""How the document of a scan begins; everything else is read as lines, each on its own."""
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")


class ExportError(FabwaferError):
    """There is no export where one was named. The text says what was expected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its attributes, or why it cannot be read; `place` names the file and the row in it."""

    place: str
    fields: dict[str, Any] | None
    reason: str = ""


def find_exports(named: Path) -> list[Path]:
    """Return the files of an export, by name.

    Args:
        named: A file, or the folder of an export to S3, with its `*.json.gz` in it or in folders below.

    Raises:
        ExportError: There is nothing of that name, or no such file in the folder.
    """
    if named.is_file():
        return [named]
    if not named.is_dir():
        raise ExportError(f"{named}: no such file or folder")
    found = sorted(path for path in named.rglob("*.json.gz") if path.is_file())
    if not found:
        ion = "; what is there is in the format Ion: export it as DynamoDB JSON" if any(named.rglob("*.ion*")) else ""
        raise ExportError(f"{named}: expected a folder with the files *.json.gz of an export to S3, found none{ion}")
    return found


def read_export(file: Path) -> Iterator[Row]:
    """Yield the rows of a file of an export; what cannot be read is yielded with the reason, and reading goes on.

    In the document of a scan nothing can be read after an error in its JSON: its row says so, and is the last.

    Args:
        file: Lines of `{"Item": {...}}`, or the document of a scan, in UTF-8 or UTF-16, gzipped or not.

    Raises:
        ExportError: The file cannot be opened.
    """
    try:
        with file.open("rb") as raw:
            yield from _rows(file, raw)
    except OSError as error:
        raise ExportError(f"{file}: {error.strerror}") from None


def _rows(file: Path, raw: BinaryIO) -> Iterator[Row]:
    unpacked = raw
    if raw.read(2) == _GZIP:
        raw.seek(0)
        unpacked = cast("BinaryIO", gzip.GzipFile(fileobj=raw))
        start = b""
    else:
        raw.seek(0)
        start = raw.read(2)
        raw.seek(0)
    encoding = "utf-16" if start in _UTF_16 else "utf-8-sig"
    text = TextIOWrapper(unpacked, encoding, errors="surrogateescape")
    place = ""
    try:
        window = _Window(text)
        rows = _rows_of_scan if _OF_SCAN.match(window.start()) else _rows_of_lines
        for place, value in rows(window):
            yield _row(f"{file}{place}", value)
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeError) as error:
        after = f", after{place.replace(':', ' line ')}" if place else ""
        yield Row(str(file), None, f"the file is damaged{after}: {error}")


@dataclass(frozen=True, slots=True)
class _Broken:
    """In place of a row: why it cannot be read."""

    reason: str


def _rows_of_lines(window: "_Window") -> Iterator[tuple[str, object]]:
    for number, line in enumerate(window.lines(), start=1):
        if line is None:
            yield f":{number}", _Broken(f"expected a row of at most {LONGEST_ROW} characters, got a longer line")
        elif line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f":{number}", _Broken(f"expected JSON, got {shown(line[:60])} ({error})")
            else:
                yield f":{number}", value


def _rows_of_scan(window: "_Window") -> Iterator[tuple[str, object]]:
    """Yield the items of one document, or of several one after another, as pages of a scan are."""
    number = 0
    try:
        for item in _items(window):
            number += 1
            yield f" item {number}", {"Item": item}
    except (ValueError, RecursionError) as error:
        yield f" item {number + 1}", _Broken(f"{error}; what follows in this file is not read")


def _items(window: "_Window") -> Iterator[Any]:
    while window.next():
        for _ in window.parts("{", "}"):
            key = window.value()
            window.take(":")
            if key != "Items":
                window.value()
                continue
            for _ in window.parts("[", "]"):
                yield window.value()


class _Window:
    """A text of which a part is in memory, read on as it is needed."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._held = ""
        self._at = 0
        self._ended = False

    def start(self) -> str:
        """Return the beginning, without going on."""
        self._read_on()
        return self._held

    def lines(self) -> Iterator[str | None]:
        """Yield each line; None for one that is too long."""
        while line := self._line():
            if len(line) <= LONGEST_ROW or line.endswith("\n"):
                yield line
                continue
            while line and not line.endswith("\n"):
                line = self._text.readline(_CHUNK)
            yield None

    def _line(self) -> str:
        end = self._held.find("\n", self._at) + 1
        if end:
            line, self._at = self._held[self._at : end], end
            return line
        line, self._held, self._at = self._held[self._at :], "", 0
        return line + self._text.readline(LONGEST_ROW + 1 - len(line))

    def next(self) -> str:
        """Return the next character that is no white space, without going on; empty at the end."""
        while True:
            while self._at < len(self._held):
                if not self._held[self._at].isspace():
                    return self._held[self._at]
                self._at += 1
            if not self._read_on():
                return ""

    def take(self, expected: str) -> None:
        """Go on over a character.

        Raises:
            ValueError: Another one comes.
        """
        found = self.next()
        if found != expected:
            raise ValueError(
                f"expected {expected!r}, got {found!r}" if found else f"expected {expected!r}, got the end"
            )
        self._at += 1

    def parts(self, opening: str, closing: str) -> Iterator[None]:
        """Yield where each part between two brackets begins; the caller goes on over it.

        Raises:
            ValueError: There are no such brackets, or no commas between the parts.
        """
        self.take(opening)
        while self.next() != closing:
            yield
            if self.next() != closing:
                self.take(",")
        self.take(closing)

    def value(self) -> Any:
        """Return the next value, and go on after it.

        Raises:
            ValueError: It is not JSON, or too long.
            RecursionError: It is nested too deep.
        """
        self.next()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._held, self._at)
            except ValueError as error:
                if len(self._held) - self._at > LONGEST_ROW or not self._read_on():
                    found = shown(self._held[self._at : self._at + 60])
                    raise ValueError(f"expected JSON, got {found} ({getattr(error, 'msg', error)})") from None
            else:
                # A number that ends with what is held may go on in the rest.
                if end < len(self._held) or not self._read_on():
                    self._at = end
                    return value

    def _read_on(self) -> bool:
        more = "" if self._ended else self._text.read(_CHUNK)
        self._ended = not more
        self._held, self._at = self._held[self._at :] + more, 0
        return bool(more)


def _row(place: str, value: object) -> Row:
    if isinstance(value, _Broken):
        return Row(place, None, value.reason)
    item = value.get("Item") if isinstance(value, dict) else None
    if not isinstance(item, dict):
        return Row(place, None, f'expected {{"Item": {{...}}}} in DynamoDB JSON, got {shown(value)}')
    try:
        return Row(place, {name: _plain(name, typed) for name, typed in item.items()})
    except ValueError as error:
        return Row(place, None, str(error))
    except RecursionError:
        return Row(place, None, "expected a row, got one that is nested too deep")


def _plain(name: str, typed: object) -> Any:
    """Return the value of an attribute, such as `{"N": "0.5"}`; binary ones in base64, as they are written.

    Raises:
        ValueError: It is not what DynamoDB writes.
    """
    [(kind, value)] = typed.items() if isinstance(typed, dict) and len(typed) == 1 else [("", typed)]
    plain: Any = None
    match kind, value:
        case ("S" | "B", str()) | ("BOOL", bool()) | ("SS" | "BS", list()):
            plain = value
        case ("N", str()):
            plain = _number(name, value)
        case ("NS", list()):
            plain = [_number(name, one) for one in value]
        case ("M", dict()):
            plain = {inner: _plain(f"{name}.{inner}", one) for inner, one in value.items()}
        case ("L", list()):
            plain = [_plain(f"{name}.{number}", one) for number, one in enumerate(value)]
        case ("NULL", True):
            pass
        case _:
            raise ValueError(f'field {name!r}: expected a typed value such as {{"S": "text"}}, got {shown(typed)}')
    return plain


def _number(name: str, text: object) -> int | float:
    try:
        return int(str(text)) if _WHOLE.fullmatch(str(text)) else float(str(text))
    except ValueError:
        raise ValueError(f"field {name!r}: expected a number, got {shown(text)}") from None
