"""Addresses of servers, with the credentials to sign in with."""

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import SecretStr

# A comma inside a URL, for example in its query, separates nothing.
_BETWEEN: Final = re.compile(r",\s*(?=[a-z][a-z0-9+.-]*://)")


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
    return ",".join(_signed(one.strip(), signed) for one in _BETWEEN.split(url))


def _signed(url: str, credentials: str) -> str:
    host = urlsplit(url).netloc
    # A URL without a host, such as that of a SQLite file, has no place for credentials.
    return url.replace("://", f"://{credentials}@", 1) if host and "@" not in host else url


def split_credentials(url: str) -> SignIn:
    """Take the credentials out of URLs, and undo their percent-encoding, which NATS's client does not do.

    Args:
        url: One or more `nats://USER:PASSWORD@HOST:PORT`, separated by commas. The credentials of the first are those
            of all.
    """
    parts = [urlsplit(one.strip()) for one in _BETWEEN.split(url)]
    first = parts[0]
    return SignIn(
        [urlunsplit(one._replace(netloc=one.netloc.rpartition("@")[2])) for one in parts],
        None if first.username is None else unquote(first.username),
        None if first.password is None else unquote(first.password),
    )
