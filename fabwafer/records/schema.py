"""Migrations: one owner runs them, everyone else checks that they fit."""

import sys
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from fabwafer.errors import FabwaferError
from fabwafer.records.engine import connect, reading, sqlite_file, writing
from fabwafer.records.tables import SCHEMA

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

_ADVISORY_LOCK: Final = 0x666162_7761666572
"""The name of our lock among all of a PostgreSQL server's: "fabwafer" as a number."""


class SchemaError(FabwaferError):
    """The database's tables are not the ones that this program needs. The text says what to do."""


def check(engine: Engine) -> None:
    """Check that the tables fit this program. Migrations only add within a minor version, so later ones of ours fit.

    Raises:
        SchemaError: They do not.
        RecordsUnavailableError: The database cannot answer now.
    """
    found = _version(engine)
    if not _fits(found):
        raise SchemaError(_misfit(found))


def check_same(connection: Connection) -> None:
    """Check that the tables are exactly those that this program knows: it would not see what later ones hold.

    Raises:
        SchemaError: They are not; the text says what to do.
    """
    found = _version_in(connection)
    if found != SCHEMA:
        raise SchemaError(_misfit(found))


def loads(version: str) -> bool:
    """Return whether rows of tables of a version fit into this program's: those of its minor version, not later."""
    numbers, ours = _numbers(version), _numbers(SCHEMA)
    return numbers[:-1] == ours[:-1] and numbers <= ours


def migrate(url: str) -> None:
    """Bring the tables of a database up to what this program needs; several may call it at once.

    Args:
        url: As for `Records`; a SQLite file is made when there is none, its folder is not.

    Raises:
        SchemaError: The database is of a newer program.
        RecordsUnavailableError: The database cannot answer now.
    """
    engine = connect(url)
    try:
        found = _version(engine)
        if _fits(found):
            return
        if found is not None and _numbers(found) > _numbers(SCHEMA):
            raise SchemaError(_misfit(found))
        _upgrade(engine)
    finally:
        engine.dispose()


def _upgrade(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with writing(engine) as connection:
        # SQLite is locked by its BEGIN IMMEDIATE already. Whoever waited here finds nothing left to do.
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(engine: Engine) -> str | None:
    file = sqlite_file(engine.url)
    if file is not None and not file.exists():
        return None  # connecting would make an empty file
    with reading(engine) as connection:
        return _version_in(connection)


def _version_in(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def _fits(found: str | None) -> bool:
    if found is None:
        return False
    numbers, needed = _numbers(found), _numbers(SCHEMA)
    return numbers[:-1] == needed[:-1] and numbers >= needed


def _numbers(version: str) -> tuple[int, ...]:
    """Return the parts of a version, to be compared; one that is not ours counts as newer than any that is."""
    parts = version.split("_")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else (sys.maxsize,)


def _misfit(found: str | None) -> str:
    if found is None:
        return f"the records' database has no tables yet: expected version {SCHEMA}; run the migrations first"
    if _numbers(found) < _numbers(SCHEMA):
        return f"the records' database has tables of version {found}, expected {SCHEMA}: run the migrations first"
    return f"the records' database has tables of version {found}, this program knows {SCHEMA}: use a newer fabwafer"
