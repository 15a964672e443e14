"""Where a command looks for the system: a data directory that is given, the environment, the default directory."""

import os
from pathlib import Path

import pytest

from fabwafer.commands.system import System, SystemNotFoundError, address, read_system, write_system
from fabwafer.service.settings import SettingsError


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("FABWAFER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FABWAFER_DATA", str(tmp_path))


def system(pid: int | None = None) -> System:
    return System(
        nats_url="nats://own:secret@127.0.0.1:4222",
        mqtt_url="mqtt://127.0.0.1:1883",
        inference_url="http://127.0.0.1:8080",
        metrics_url="http://127.0.0.1:9100",
        database_url="sqlite:///records.db",
        pid=pid,
    )


def test_an_address_comes_from_the_running_system(tmp_path: Path) -> None:
    write_system(tmp_path, system(pid=os.getpid()))
    assert address("nats_url", None) == address("nats_url", tmp_path) == "nats://own:secret@127.0.0.1:4222"
    assert (tmp_path / "system.json").stat().st_mode & 0o777 == 0o600


def test_the_environment_counts_where_no_directory_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_system(tmp_path, system())
    monkeypatch.setenv("FABWAFER_NATS_URL", "nats://nats:4222")
    monkeypatch.setenv("FABWAFER_INFERENCE_URL", "http://wafer")
    assert (address("nats_url", None), address("inference_url", None)) == ("nats://nats:4222", "http://wafer")
    assert address("nats_url", tmp_path) == "nats://own:secret@127.0.0.1:4222"


@pytest.mark.parametrize(
    ("field", "url", "signed"),
    [
        ("nats_url", "nats://a:1,nats://b:2", "nats://kim:p%40ss@a:1,nats://kim:p%40ss@b:2"),
        ("database_url", "postgresql+psycopg://db/fab", "postgresql+psycopg://kim:p%40ss@db/fab"),
    ],
)
def test_credentials_in_the_environment_belong_to_the_url_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str, url: str, signed: str
) -> None:
    name = f"FABWAFER_{field.removesuffix('_url').upper()}"
    (tmp_path / "password").write_text("p@ss\n")
    monkeypatch.setenv(f"{name}_URL", url)
    monkeypatch.setenv(f"{name}_USER", "kim")
    monkeypatch.setenv(f"{name}_PASSWORD_FILE", str(tmp_path / "password"))
    assert address(field, None) == signed


def test_a_password_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_NATS_URL", "nats://nats:4222")
    monkeypatch.setenv("FABWAFER_NATS_PASSWORD_FILE", "/nowhere/password")
    with pytest.raises(SettingsError, match=r"^FABWAFER_NATS_PASSWORD_FILE: cannot read /nowhere/password: No such"):
        address("nats_url", None)


def test_a_system_that_stopped_or_wrote_something_else_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SystemNotFoundError, match="no system runs"):
        read_system(tmp_path)
    write_system(tmp_path, system(pid=2**22 + 1))  # above the largest process id
    with pytest.raises(SystemNotFoundError, match="has stopped"):
        read_system(tmp_path)
    (tmp_path / "system.json").write_text("{}")
    with pytest.raises(SystemNotFoundError, match="is not what `fabwafer up` writes"):
        read_system(tmp_path)
