"""One owner makes the tables; the others only check that they fit, with a sentence when they do not."""

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, select, text

from fabwafer.records import DatabaseUrlError, Records, RecordsUnavailableError, SchemaError, migrate
from fabwafer.records.engine import connect, writing
from fabwafer.records.tables import SCHEMA, metadata


def check(url: str) -> None:
    with Records(url) as records:
        records.check()


def set_version(url: str, version: str) -> None:
    engine = connect(url)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    engine.dispose()


@pytest.fixture
def migrated(empty_database: str) -> str:
    """The URL of a database of its own, with tables."""
    migrate(empty_database)
    return empty_database


def test_a_database_that_was_not_migrated_does_not_fit(empty_database: str) -> None:
    with pytest.raises(SchemaError, match="has no tables yet"):
        check(empty_database)


def test_checking_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        check(f"sqlite:///{tmp_path / 'records.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_migrated_database_fits_and_can_be_migrated_again(empty_database: str) -> None:
    migrate(empty_database)
    check(empty_database)
    migrate(empty_database)
    check(empty_database)


def test_the_migrations_make_the_tables_that_the_program_names(database: str) -> None:
    engine = connect(database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_program_is_written_for_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "fabwafer.records:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


@pytest.mark.parametrize("version", ["0_2_001", "0_10_001", "9999", "abc"])
def test_a_database_of_a_newer_program_is_refused_and_left_alone(migrated: str, version: str) -> None:
    set_version(migrated, version)

    with pytest.raises(SchemaError, match=f"version {version}.*use a newer fabwafer"):
        check(migrated)
    with pytest.raises(SchemaError, match="use a newer fabwafer"):
        migrate(migrated)


def test_a_later_migration_of_the_same_minor_version_fits_since_it_only_added(migrated: str) -> None:
    set_version(migrated, SCHEMA[:-3] + "999")

    check(migrated)
    migrate(migrated)


def test_an_older_database_asks_for_its_migrations(migrated: str) -> None:
    set_version(migrated, "0_0_001")

    with pytest.raises(SchemaError, match="run the migrations first"):
        check(migrated)


def test_a_database_of_the_first_version_gets_what_came_later(migrated: str) -> None:
    engine = connect(migrated)
    with writing(engine) as connection:
        connection.execute(text("DROP INDEX ix_predictions_shadow"))
        connection.execute(text("DROP TABLE drawings"))
        for name in ("review_reason", "review_detail"):
            connection.execute(text(f"ALTER TABLE predictions DROP COLUMN {name}"))
        for name in ("refused", "reason"):
            connection.execute(text(f"ALTER TABLE rollouts DROP COLUMN {name}"))
    set_version(migrated, "0_1_001")

    with pytest.raises(SchemaError, match="tables of version 0_1_001, expected"):
        check(migrated)
    migrate(migrated)
    check(migrated)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def revisions() -> list[str]:
    """The migrations, the oldest first."""
    config = Config()
    config.set_main_option("script_location", "fabwafer.records:migrations")
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def upgrade(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "fabwafer.records:migrations")
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def write_and_read(engine: Engine, tables: MetaData, number: int) -> None:
    """Write a row into each table, with what an older program knows of it, and read it again."""
    values = {str: f"x{number}", int: number, bool: False, float: 0.5, bytes: b"x", dict: {}}
    with writing(engine) as connection:
        for table in tables.sorted_tables:
            row = {column.name: values[column.type.python_type] for column in table.columns if not column.nullable}
            connection.execute(table.insert().values(row))
        for table in tables.sorted_tables:
            assert len(connection.execute(select(table)).all()) == number


@pytest.mark.parametrize(
    ("older", "newer"), [pair for pair in itertools.pairwise(revisions()) if pair[0][:-3] == pair[1][:-3]]
)
def test_what_an_older_program_writes_and_reads_still_fits_newer_tables_of_its_minor_version(
    empty_database: str, older: str, newer: str
) -> None:
    engine = connect(empty_database)
    upgrade(engine, older)
    of_older = MetaData()
    of_older.reflect(engine)
    of_older.remove(of_older.tables["alembic_version"])
    write_and_read(engine, of_older, 1)

    upgrade(engine, newer)

    write_and_read(engine, of_older, 2)
    engine.dispose()


def test_several_may_migrate_at_once(empty_database: str) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as processes:
        for done in [processes.submit(migrate, empty_database) for _ in range(6)]:
            done.result(timeout=120)
    check(empty_database)


def test_a_database_that_does_not_answer_is_named_as_such() -> None:
    with Records("postgresql://nobody@127.0.0.1:1/none") as records, pytest.raises(RecordsUnavailableError):
        records.check()


@pytest.mark.parametrize("url", ["", "no url", "oracle://kim:secret@host/db", "postgresql://kim:secret@host:port/db"])
def test_the_url_of_no_database_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(DatabaseUrlError, match="expected the URL") as refused:
        Records(url)
    assert "secret" not in str(refused.value)
