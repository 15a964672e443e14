"""Settings of a process: read from the environment, each credential also from a file, wrong ones told in a sentence."""

from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fabwafer.errors import FabwaferError

PREFIX: Final = "FABWAFER_"
FILE_SUFFIX: Final = "_file"

S = TypeVar("S", bound="ServiceSettings")


class SettingsError(FabwaferError):
    """A setting that is missing or wrong. The text names its variable and says what was expected."""


class ServiceSettings(BaseSettings):
    """The base of a process's settings: each is read from FABWAFER_<NAME>.

    A field of type SecretStr can be given by a file as well, as Kubernetes mounts a Secret: FABWAFER_<NAME>_FILE names
    it. White space around the content is left out.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Read the settings.

        Args:
            given: Settings that win over the environment, such as those of the command line; None is not given.

        Raises:
            SettingsError: One is missing or wrong.
        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise SettingsError("; ".join(_sentence(detail) for detail in error.errors())) from None

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: Any) -> Any:
        import os

        if not isinstance(values, dict):
            return values
        found = dict(values)
        for name in secret_fields(cls):
            file = os.environ.get(f"{PREFIX}{name}{FILE_SUFFIX}".upper())
            if file and found.get(name) is None:
                try:
                    found[name] = Path(file).read_text().strip()
                except OSError as error:
                    raise ValueError(f"{name}{FILE_SUFFIX}: cannot read {file}: {error.strerror}") from None
        return found


def secret_fields(settings: type[ServiceSettings]) -> list[str]:
    """Return the names of the settings that can be given by a file."""
    return [name for name, field in settings.model_fields.items() if "SecretStr" in str(field.annotation)]


def _sentence(detail: Any) -> str:
    reason = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        name, _, reason = reason.partition(": ")
        return f"{PREFIX}{name.upper()}: {reason}"
    variable = f"{PREFIX}{str(detail['loc'][0]).upper()}"
    return f"{variable} is not set" if detail["type"] == "missing" else f"{variable}: {reason}"


def with_credentials(url: str, user: str | None, password: SecretStr | None) -> str:
    """Return URLs, separated by commas, with a user and a password; those that have some of their own keep them.

    Args:
        url: Such as `nats://HOST:PORT`, one or several.
        user: None leaves the URLs as they are.
        password: Its password.
    """
    if user is None:
        return url
    signed = quote(user, safe="") + (f":{quote(password.get_secret_value(), safe='')}" if password else "")
    parts = (urlsplit(one.strip()) for one in url.split(","))
    return ",".join(
        urlunsplit(one if "@" in one.netloc else one._replace(netloc=f"{signed}@{one.netloc}")) for one in parts
    )
