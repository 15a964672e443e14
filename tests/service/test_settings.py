"""Settings come from the environment or from files; a wrong one is named in a sentence without its value."""

import re
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from fabwafer.models.kubernetes import RolloutSettings
from fabwafer.service.addresses import split_credentials, with_credentials
from fabwafer.service.settings import ServiceSettings, SettingsError, credential_fields, variable
from fabwafer_bridge.device_auth import DeviceAuthSettings
from fabwafer_bridge.gateway import GatewaySettings

DOCS = Path(__file__).parents[2] / "docs"


class Settings(ServiceSettings):
    address: str
    copies: int = Field(default=1, ge=1)
    lake_user: str | None = None
    lake_password: SecretStr | None = None


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_ADDRESS", "somewhere")


def test_a_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_COPIES", "3")
    assert Settings.read().copies == 3


def test_a_setting_of_the_command_line_wins_and_none_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_COPIES", "3")
    assert (Settings.read(copies=2).copies, Settings.read(copies=None).copies) == (2, 3)


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABWAFER_ADDRESS")
    with pytest.raises(SettingsError, match=r"^FABWAFER_ADDRESS is not set$"):
        Settings.read()


def test_all_wrong_settings_are_named_at_once_with_what_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABWAFER_ADDRESS")
    monkeypatch.setenv("FABWAFER_COPIES", "0")
    with pytest.raises(SettingsError) as refused:
        Settings.read()
    assert str(refused.value) == "FABWAFER_ADDRESS is not set; FABWAFER_COPIES: expected greater than or equal to 1"


def test_a_wrong_setting_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_COPIES", "hunter2")
    with pytest.raises(SettingsError, match=r"^FABWAFER_COPIES: expected a valid integer") as refused:
        Settings.read()
    assert "hunter2" not in str(refused.value)


def test_credentials_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, content in (("user", "kim\n"), ("password", " hunter2\n")):
        (tmp_path / name).write_text(content)
        monkeypatch.setenv(f"FABWAFER_LAKE_{name.upper()}_FILE", str(tmp_path / name))
    settings = Settings.read()
    assert settings.lake_password is not None
    assert (settings.lake_user, settings.lake_password.get_secret_value()) == ("kim", "hunter2")
    assert "hunter2" not in repr(settings)


def test_the_environment_wins_over_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FABWAFER_LAKE_USER", "kim")
    monkeypatch.setenv("FABWAFER_LAKE_USER_FILE", str(tmp_path / "missing"))
    assert Settings.read().lake_user == "kim"


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file or directory"), (b"\xff", "it is no text")])
def test_a_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("FABWAFER_LAKE_PASSWORD_FILE", str(file))
    with pytest.raises(SettingsError) as refused:
        Settings.read(lake_user="kim")
    assert str(refused.value) == f"FABWAFER_LAKE_PASSWORD_FILE: cannot read {file}: {reason}"


def test_a_password_without_a_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_LAKE_PASSWORD", "hunter2")
    with pytest.raises(SettingsError, match=r"^FABWAFER_LAKE_USER: expected a user") as refused:
        Settings.read()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("nats://host:4222", "nats://k%40m:p%2Fw@host:4222"),
        ("nats://a:1,nats://b:2", "nats://k%40m:p%2Fw@a:1,nats://k%40m:p%2Fw@b:2"),
        ("nats://own:secret@host", "nats://own:secret@host"),
        ("postgresql+psycopg://db/fab?options=a,b", "postgresql+psycopg://k%40m:p%2Fw@db/fab?options=a,b"),
        ("sqlite:////data/records.db", "sqlite:////data/records.db"),
        ("a:4222,b:4222", "nats://k%40m:p%2Fw@a:4222,nats://k%40m:p%2Fw@b:4222"),
        ("postgresql:///fab?host=/run/postgresql", "postgresql://k%40m:p%2Fw@/fab?host=/run/postgresql"),
        ("postgresql://own@db/fab", "postgresql://own:p%2Fw@db/fab"),
    ],
)
def test_a_url_gets_the_credentials_that_it_lacks(url: str, signed: str) -> None:
    assert with_credentials(url, "k@m", SecretStr("p/w")) == signed
    assert with_credentials(url, None, None) == url


def test_credentials_are_taken_out_of_urls_as_they_were_put_in() -> None:
    url = with_credentials("nats://a:1, nats://b:2", "k@m", SecretStr("p/w"))
    assert split_credentials(url) == (["nats://a:1", "nats://b:2"], "k@m", "p/w")
    assert split_credentials("nats://a") == (["nats://a"], None, None)
    assert split_credentials("nats://u:p@a:1,b:2") == (["nats://a:1", "nats://b:2"], "u", "p")


@pytest.mark.parametrize(
    ("page", "settings"),
    [("gateway.md", GatewaySettings), ("device-auth.md", DeviceAuthSettings), ("rollout.md", RolloutSettings)],
)
def test_a_page_lists_the_settings_that_there_are(page: str, settings: type[ServiceSettings]) -> None:
    rows = re.findall(r"^\| (`FABWAFER_[^|]*) \|", (DOCS / page).read_text(), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"FABWAFER_\w+", row)]
    assert sorted(listed) == sorted(variable(name) for name in settings.model_fields)


@pytest.mark.parametrize("settings", [GatewaySettings, DeviceAuthSettings, RolloutSettings])
def test_every_user_and_password_can_be_given_by_a_file(settings: type[ServiceSettings]) -> None:
    named = [name for name in settings.model_fields if name.endswith(("_user", "_password"))]
    assert credential_fields(settings) == named != []
