"""Records to test with, in SQLite and in PostgreSQL, and messages to store in them.

tests/conftest.py makes the fixtures known to every test.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabwafer.messages.bodies import Image, Prediction
from fabwafer.records import ReceivedPrediction, Records, Shot, WaferRecord, migrate
from fabwafer.records.engine import connect, writing
from fabwafer.records.tables import metadata
from tests.support.postgres import fresh_database

WHO = {"fab": "fab1", "camera": "cam1", "imgid": "img1"}
CAPTURED = 1_700_000_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table; a SQLite file is not even there."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.db'}"
    else:
        with fresh_database(request.getfixturevalue("postgres_server")) as url:
            yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with tables, to copy: migrating for each test would take most of its time."""
    file = tmp_path_factory.mktemp("migrated") / "records.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with tables, to empty: making one for each test would take most of its time."""
    with fresh_database(postgres_server) as url:
        migrate(url)
        yield url


def empty(database: str) -> None:
    """Delete all that is in the tables."""
    engine = connect(database)
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with tables and nothing in them."""
    if request.param == "sqlite":
        file = tmp_path / "records.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
        return f"sqlite:///{file}"
    url: str = request.getfixturevalue("migrated_postgres")
    empty(url)
    return url


@pytest.fixture
def records(database: str) -> Iterator[Records]:
    """Records with nothing in them."""
    with Records(database) as opened:
        yield opened


def shot(
    data: bytes = b"a file", *, received: int = 1, sequence: int = 1, timestamp: int = CAPTURED, **more: Any
) -> Shot:
    """Return a shot of img1, or of the wafer that is named."""
    image = Image.of_file(data, **{**WHO, "timestamp": timestamp, **more})
    return Shot(image, data, received, sequence)


def predicted(
    prediction: str = "Loc",
    probability: float = 0.9,
    *,
    received: int = 1,
    sequence: int = 1,
    shadow: bool = False,
    **more: Any,
) -> ReceivedPrediction:
    """Return a prediction of img1 by the cluster's model v1, or what is named instead."""
    fields = {
        **WHO,
        "timestamp": CAPTURED,
        "source": "cluster",
        "model": "v1",
        "prediction": prediction,
        "probability": probability,
        **more,
    }
    return ReceivedPrediction(Prediction.model_validate(fields), received, sequence, shadow)


def the_record(records: Records) -> WaferRecord:
    """Return the only record."""
    [record] = records.wafers()
    return record
