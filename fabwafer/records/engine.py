"""The connection to the records' database: SQLite set to lose nothing, or PostgreSQL."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, TimeoutError

from fabwafer.errors import FabwaferError

BUSY_SECONDS: Final = 30
"""How long a SQLite writer waits for another writer."""

_WRITES: Final = "fabwafer_writes"


class RecordsUnavailableError(FabwaferError):
    """The database cannot be reached or cannot answer now. The same call may succeed later."""


class DatabaseUrlError(FabwaferError):
    """The URL is of no database that there is a driver for. The text does not repeat it: it may hold a password."""


def connect(url: str) -> Engine:
    """Make the engine for a database; it connects when it is first used.

    Args:
        url: `sqlite:///FILE`, or `postgresql://...` with or without a driver's name.

    Raises:
        DatabaseUrlError: It is the URL of no database that there is a driver for.
    """
    try:
        return _engine(make_url(url))
    except (ArgumentError, ImportError, ValueError):
        raise _refused() from None


def _refused() -> DatabaseUrlError:
    return DatabaseUrlError(
        "expected the URL of the records' database, sqlite:///FILE or postgresql://..., got another"
    )


def _engine(address: URL) -> Engine:
    if address.drivername in ("postgresql", "postgres"):
        address = address.set(drivername="postgresql+psycopg")
    if address.get_backend_name() != "sqlite":
        return create_engine(address, json_serializer=json_text, pool_pre_ping=True)
    engine = create_engine(address, json_serializer=json_text, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def sqlite_file(url: URL | str) -> Path | None:
    """Return the file of a SQLite database; None for PostgreSQL.

    Raises:
        DatabaseUrlError: It is the URL of no database.
    """
    try:
        address = make_url(url)
    except ArgumentError:
        raise _refused() from None
    if address.get_backend_name() != "sqlite" or not address.database:
        return None
    return Path(address.database)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Python's driver would begin transactions by itself, deferred and only before the first write.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another wrote in between, whatever the
    # timeout: so writers take the lock when they begin.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that reads.

    Raises:
        RecordsUnavailableError: The database cannot answer now.
    """
    with _named_errors(), engine.begin() as connection:
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that reads, and sees one moment of the database however long it reads.

    Raises:
        RecordsUnavailableError: The database cannot answer now.
    """
    if engine.dialect.name == "postgresql":  # in SQLite every transaction does
        engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with reading(engine) as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that writes.

    Raises:
        RecordsUnavailableError: The database cannot answer now; nothing was written.
        sqlalchemy.exc.DataError: A value that the database can never hold; nothing was written.
    """
    with _named_errors(), engine.execution_options(**{_WRITES: True}).begin() as connection:
        yield connection


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except (DataError, IntegrityError):
        raise
    except DBAPIError as error:
        raise RecordsUnavailableError(f"the records' database does not answer: {error.orig}") from error
    except TimeoutError as error:
        raise RecordsUnavailableError(f"all connections to the records' database are busy: {error}") from error


def json_text(value: Any) -> str:
    """Write JSON that PostgreSQL accepts: Python reads NaN and Infinity in what devices send; they become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(finite, separators=(",", ":"))
