"""Addresses of servers, with the credentials to sign in with."""

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import SecretStr

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class SignIn(NamedTuple):
    """Servers without credentials in their URLs, and the credentials for all of them."""

    servers: list[str]
    user: str | None
    password: str | None


def with_credentials(url: str, user: str | None, password: SecretStr | None) -> str:
    """Return URLs, separated by commas, with a user and a password; those that have some of their own keep them.

    Args:
        url: Such as `nats://HOST:PORT`, one or several.
        user: None leaves the URLs as they are.
        password: Its password.
    """
    if not user:
        return url
    signed = quote(user, safe="") + (f":{quote(password.get_secret_value(), safe='')}" if password else "")
    return ",".join(_signed(one, signed, password) for one in _servers(url))


def _servers(url: str) -> list[str]:
    """Split the servers of NATS, each with its scheme; any other URL may hold commas of its own."""
    scheme = _SCHEME.match(url.strip())
    if scheme and scheme[0].lower() not in ("nats://", "tls://"):
        return [url.strip()]
    servers = [one.strip() for one in url.split(",")]
    return [one if _SCHEME.match(one) else f"nats://{one}" for one in servers]


def _signed(url: str, credentials: str, password: SecretStr | None) -> str:
    parts = urlsplit(url)
    if parts.scheme.startswith("sqlite"):  # a file, which nobody signs in to
        return url
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return urlunsplit(parts._replace(netloc=f"{credentials}@{host}"))
    if ":" in user or password is None:
        return url
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{host}"))


def split_credentials(url: str) -> SignIn:
    """Take the credentials out of URLs, and undo their percent-encoding, which NATS's client does not do.

    Args:
        url: One or more `nats://USER:PASSWORD@HOST:PORT`, separated by commas. The credentials of the first are those
            of all.
    """
    parts = [urlsplit(one) for one in _servers(url)]
    first = parts[0]
    return SignIn(
        [urlunsplit(one._replace(netloc=one.netloc.rpartition("@")[2])) for one in parts],
        None if first.username is None else unquote(first.username),
        None if first.password is None else unquote(first.password),
    )
