"""A real PostgreSQL for tests, from Debian's package: one server a session, a database of its own for each test."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

_USER = "fabwafer"


class PostgresNotInstalledError(RuntimeError):
    """There is no PostgreSQL server on this machine, or no user that may run it."""


def postgres_programs() -> Path:
    """Return the folder of the newest installed PostgreSQL's programs.

    Raises:
        PostgresNotInstalledError: There is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda file: float(file.parts[4]))
    if found:
        return found[-1].parent
    if on_path := shutil.which("postgres"):
        return Path(on_path).resolve().parent
    raise PostgresNotInstalledError("needs a PostgreSQL server: install the Debian package postgresql")


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[str]:
    """Run a PostgreSQL server on a free port of the loopback interface; yield the URL of its database.

    Args:
        durable: Whether it waits for the disk at each commit, as one in production does.

    Raises:
        PostgresNotInstalledError: There is none to run.
    """
    programs = postgres_programs()
    # The server refuses to run as root, and Debian's package brings a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    # Not under $TMPDIR, which that user may not be able to enter; and a socket's path must be short.
    home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if user:
            shutil.chown(home, user)
        password = secrets.token_hex(16)
        _make_cluster(programs, home, user, password)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": home}
        if not durable:
            settings["fsync"] = "off"
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", home / "data", *options],
                cwd=home,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                stdout=log,
                stderr=log,
            )
        url = f"postgresql://{_USER}:{password}@127.0.0.1:{port}/postgres"
        try:
            _wait_until_it_answers(url, server, home / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown: cuts connections
            server.wait(timeout=30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _make_cluster(programs: Path, home: Path, user: str | None, password: str) -> None:
    (home / "password").write_text(password)
    # The C locale sorts as SQLite does; the password keeps other users of the machine out.
    options = ["-U", _USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8"]
    done = subprocess.run(
        [programs / "initdb", "-D", home / "data", "--pwfile", home / "password", *options],
        cwd=home,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed: {done.stderr}")


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            psycopg.connect(url, connect_timeout=10).close()
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Make an empty database on a server; yield its URL, and drop it at the end."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as operator:
        operator.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield server_url.rpartition("/")[0] + f"/{name}"
        finally:
            operator.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running PostgreSQL server."""
    try:
        postgres_programs()
    except PostgresNotInstalledError as missing:
        pytest.skip(str(missing))
    with running_postgres() as url:
        yield url
