"""Settings of a process, read from the environment; credentials can be given by files as well."""

import os
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fabwafer.errors import FabwaferError
from fabwafer.service.addresses import with_credentials

PREFIX: Final = "FABWAFER_"
FILE_SUFFIX: Final = "_FILE"


class SettingsError(FabwaferError):
    """A setting that is missing or wrong. The text names its variable and says what was expected."""


class ServiceSettings(BaseSettings):
    """The base of a process's settings: each is read from FABWAFER_<NAME>.

    A secret or a user's name can be given by a file as well, as Kubernetes mounts a Secret: FABWAFER_<NAME>_FILE names
    it. White space around the content is removed. A value in the environment wins over the file.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Read the settings.

        Args:
            given: Settings that win over the environment, such as those of the command line; None means not given.

        Raises:
            SettingsError: One is missing or wrong.
        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise SettingsError("; ".join(_sentence(detail) for detail in error.errors())) from None

    @model_validator(mode="before")
    @classmethod
    def _credentials_from_files(cls, values: Any) -> Any:
        found = dict(values)
        for name in credential_fields(cls):
            file = os.environ.get(f"{variable(name)}{FILE_SUFFIX}")
            if file and not found.get(name):
                try:
                    found[name] = Path(file).read_text().strip()
                except (OSError, UnicodeDecodeError) as error:
                    reason = getattr(error, "strerror", None) or "it is no text"
                    raise ValueError(f"{name}{FILE_SUFFIX}: cannot read {file}: {reason}") from None
        return found

    @model_validator(mode="after")
    def _no_password_without_a_user(self) -> Self:
        for name in type(self).model_fields:
            user = f"{name.removesuffix('_password')}_user"
            if name.endswith("_password") and getattr(self, name) and not getattr(self, user, True):
                raise ValueError(f"{user}: expected a user, since {variable(name)} is set")
        return self


class BusSettings(ServiceSettings):
    """Where the bus is."""

    nats_url: str = "nats://127.0.0.1:4222"
    """The bus; several servers of a cluster separated by commas. It may hold the bridge's user and password."""
    nats_user: str | None = None
    """The bridge's user on the bus, where the URL holds none."""
    nats_password: SecretStr | None = None
    """Its password."""

    @property
    def bus_url(self) -> str:
        """The bus, with the credentials."""
        return with_credentials(self.nats_url, self.nats_user, self.nats_password)


class DatabaseSettings(ServiceSettings):
    """Where the records are."""

    database_url: str = "sqlite:///records.db"
    """SQLAlchemy URL of the records. It may hold a user and a password."""
    database_user: str | None = None
    """The database's user, where the URL holds none."""
    database_password: SecretStr | None = None
    """Its password."""

    @property
    def records_url(self) -> str:
        """The records, with the credentials."""
        return with_credentials(self.database_url, self.database_user, self.database_password)


class MetricsSettings(ServiceSettings):
    """Where a process serves /metrics, /healthz and /readyz."""

    metrics_host: str = "127.0.0.1"
    """The address to listen on."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """The port; 0 takes a free one."""


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def credential_fields(settings: type[ServiceSettings]) -> list[str]:
    """Return the names of the settings that can be given by a file."""
    return [
        name
        for name, field in settings.model_fields.items()
        if "SecretStr" in str(field.annotation) or name.endswith("_user")
    ]


def _sentence(detail: Any) -> str:
    reason = detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if not detail["loc"]:  # a validator of the whole, which names the setting itself
        name, _, reason = reason.partition(": ")
        return f"{variable(name)}: {reason}"
    name = variable(str(detail["loc"][0]))
    return f"{name} is not set" if detail["type"] == "missing" else f"{name}: {reason}"
