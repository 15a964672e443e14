"""Dumps of the records: a file of JSON lines for each table, the same from SQLite and PostgreSQL.

Every table that is declared in `fabwafer.records.tables` is in a dump, with all of its columns. Bytes are written in
base64. In place of an image's bytes a shot has its place in the archives beside the dump.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Connection, LargeBinary, String, Table, func, select, text

from fabwafer.errors import FabwaferError
from fabwafer.records.image_archives import ArchiveReader, ArchiveWriter, EarlierPlaces, Place
from fabwafer.records.tables import metadata, rollouts, shots

_ROWS_AT_ONCE: Final = 500
_CHANGING: Final = {"file", "pending", "attempts", "error"}
"""Columns that may differ between rows that a dump brought and the dump."""
_IMAGES_AT_ONCE: Final = 16
"""Images in memory together, of up to 2 MiB each."""

Written = Callable[[str, int], None]
"""Called with a table's name and how many of its rows are done, from time to time."""


class RecordsNotEmptyError(FabwaferError):
    """The records hold something already, so no dump can be loaded into them. The text says what."""


@dataclass(frozen=True, slots=True)
class Dump:
    """What a dump holds.

    Attributes:
        schema: The version of the tables.
        rows: The number of rows, by table.
        new_images: The number of images that the earlier dump did not have.
    """

    schema: str
    rows: dict[str, int]
    new_images: int


def dump_file(folder: Path, table: str) -> Path:
    """Return the file of a table in a dump's folder."""
    return folder / f"{table}.ndjson"


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON lines."""
    with file.open(encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)


class Moment:
    """All tables as they are at one moment, however long they are read.

    Args:
        connection: A transaction that sees one moment of the database.
        schema: The version of the tables.
    """

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def dump(self, folder: Path, images: ArchiveWriter, earlier: EarlierPlaces, done: Written) -> Dump:
        """Write all tables; only a few rows are in memory together.

        Args:
            folder: It holds nothing yet.
            images: Takes the images that the earlier dump does not have.
            earlier: Where those are that it has.
            done: Told of the progress.
        """
        counts = {}
        for table in metadata.sorted_tables:
            rows = _shots(self._connection, images, earlier) if table is shots else _rows(self._connection, table)
            count = 0
            with dump_file(folder, table.name).open("x", encoding="ascii") as file:
                for row in rows:
                    file.write(json.dumps(row, separators=(",", ":")) + "\n")
                    count += 1
                    if count % 10_000 == 0:
                        done(table.name, count)
            counts[table.name] = count
        return Dump(self._schema, counts, images.written)


def load_dump(connection: Connection, folder: Path, images: ArchiveReader, done: Written) -> None:
    """Load a dump into tables that hold nothing but, perhaps, the first rollout, which a system's set-up writes.

    Args:
        connection: A transaction that writes.
        folder: The dump; of these tables, or of older ones of the same minor version: migrations only add to them.
        images: Has the images of its shots.
        done: Told of the progress.

    Raises:
        ImageDamagedError: An image is not what it was.
        RecordsNotEmptyError: The tables hold something.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        names = ", ".join(metadata.tables)
        connection.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
    if found := obstacles(connection):
        raise RecordsNotEmptyError(f"the records are not empty, they hold {', '.join(found)}")
    connection.execute(rollouts.delete())
    for table in metadata.sorted_tables:
        file = dump_file(folder, table.name)
        if not file.exists():
            continue
        count = 0
        rows = (_decoded(row, table, images) for row in read_rows(file))
        at_once = _IMAGES_AT_ONCE if table is shots else _ROWS_AT_ONCE
        while batch := list(islice(rows, at_once)):
            connection.execute(table.insert(), batch)
            before, count = count, count + len(batch)
            if before // 10_000 != count // 10_000:
                done(table.name, count)
        if count and connection.dialect.name == "postgresql" and _is_numbered(table):
            # The rows have brought their numbers; the next one that the database gives is behind them.
            last = select(func.max(table.c.id)).scalar_subquery()
            connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last)))


def obstacles(connection: Connection) -> list[str]:
    """Return what tables hold that is in the way of loading a dump, such as `3 wafers`; nothing if they are empty.

    One rollout is no obstacle: a system's set-up names the first champion.
    """
    found = []
    for table, count in _counts(connection).items():
        if count > (1 if table == rollouts.name else 0):
            found.append(f"{count} {table}")
    return found


def holds_dump(connection: Connection, folder: Path) -> bool:
    """Return whether the tables hold exactly the rows of a dump.

    Images are not compared, nor what becomes of an alert: pending ones may be sent as soon as they are loaded.
    """
    for table in metadata.sorted_tables:
        file = dump_file(folder, table.name)
        there = _rows(connection, table, *(["file"] if table is shots else []))
        for ours, theirs in zip_longest(there, read_rows(file) if file.exists() else ()):
            if ours is None or theirs is None:
                return False
            if any(ours.get(name) != value for name, value in theirs.items() if name not in _CHANGING):
                return False
    return True


def _counts(connection: Connection) -> dict[str, int]:
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
    }


def _rows(connection: Connection, table: Table, *without: str) -> Iterator[dict[str, Any]]:
    columns = [column for column in table.c if column.name not in without]
    # By their bytes, in every database: a dump is compared with another one's rows.
    collation = "C" if connection.dialect.name == "postgresql" else "BINARY"
    keys = [key.collate(collation) if isinstance(key.type, String) else key for key in table.primary_key]
    statement = select(*columns).order_by(*keys)
    result = connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE})
    for row in result:
        yield {column.name: _encoded(column, value) for column, value in zip(columns, row, strict=True)}


def _shots(connection: Connection, images: ArchiveWriter, earlier: EarlierPlaces) -> Iterator[dict[str, Any]]:
    columns = [column for column in shots.c if column is not shots.c.file]
    statement = select(*columns, shots.c.file.is_not(None)).order_by(shots.c.id)
    result = connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE})
    for page in result.partitions():
        rows = [dict(zip(shots.c.keys(), row, strict=True)) for row in page]
        places: dict[int, Place] = {}
        missing = []
        for row in rows:
            if row["file"]:
                place = earlier.find(row["id"], _encoded(shots.c.digest, row["digest"]))
                if place is None:
                    missing.append(row)
                else:
                    places[row["id"]] = place
        for start in range(0, len(missing), _IMAGES_AT_ONCE):
            by_id = {row["id"]: row for row in missing[start : start + _IMAGES_AT_ONCE]}
            for number, data in connection.execute(select(shots.c.id, shots.c.file).where(shots.c.id.in_(by_id))):
                row = by_id[number]
                places[number] = images.add(row["received"], row["digest"], data)
        for row in rows:
            place = places.get(row["id"])
            encoded = {column.name: _encoded(column, row[column.name]) for column in columns}
            yield {**encoded, "file": asdict(place) if place else None}


def _encoded(column: Column[Any], value: Any) -> Any:
    if value is not None and isinstance(column.type, LargeBinary):
        return base64.b64encode(value).decode()
    return value


def _decoded(row: dict[str, Any], table: Table, images: ArchiveReader) -> dict[str, Any]:
    place = row.pop("file") if table is shots else None
    decoded = {
        name: base64.b64decode(value) if value is not None and isinstance(table.c[name].type, LargeBinary) else value
        for name, value in row.items()
    }
    if table is shots:
        decoded["file"] = None if place is None else images.read(Place(**place), decoded["digest"])
    return decoded


def _is_numbered(table: Table) -> bool:
    return table.autoincrement_column is not None
