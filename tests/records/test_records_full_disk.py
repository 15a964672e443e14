"""A database on a full disk stores nothing and says so, and stores again once there is room."""

import os
import shutil
from collections.abc import Iterator

import psycopg
import pytest

from fabwafer.records import Records, RecordsUnavailableError, migrate
from tests.support.records import shot
from tests.support.small_disks import SmallDisk


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, small_disk: SmallDisk) -> Iterator[str]:
    """A database whose tables are on a small disk."""
    if request.param == "sqlite":
        yield f"sqlite:///{small_disk.path / 'records.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    folder = small_disk.path / "tablespace"
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    name = f"on_{small_disk.path.name.replace('-', '_')}"
    with psycopg.connect(server, autocommit=True) as operator:
        operator.execute(f"CREATE TABLESPACE \"{name}\" LOCATION '{folder}'".encode())
        operator.execute(f'CREATE DATABASE "{name}" TABLESPACE "{name}"'.encode())
        try:
            yield server.rpartition("/")[0] + f"/{name}"
        finally:
            small_disk.empty()
            operator.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
            operator.execute(f'DROP TABLESPACE "{name}"'.encode())


def test_what_a_full_disk_cannot_hold_is_stored_when_there_is_room(database: str, small_disk: SmallDisk) -> None:
    migrate(database)
    shots = [shot(imgid=f"w{number}", data=os.urandom(1 << 20)) for number in range(3)]
    with Records(database) as records:
        assert records.store_shots(shots[:1]) == 1
        small_disk.fill()
        for _ in range(2):
            with pytest.raises(RecordsUnavailableError):
                records.store_shots(shots[1:])
        small_disk.empty()
        assert records.store_shots(shots) == 2
        assert len(list(records.wafers())) == 3
