"""The MQTT listener for devices: where it is, and whether it is the right one."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fabwafer.errors import FabwaferError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class ListenerError(FabwaferError):
    """An address or a certificate that no connection can be made with. The text says what was expected."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener; `tls` is None where it has no TLS."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


def read_listener(url: str, ca_file: Path | None = None) -> Listener:
    """Read the address of a listener.

    Args:
        url: `mqtt://HOST:PORT`, or `mqtts://HOST:PORT` for TLS; the default ports are 1883 and 8883.
        ca_file: Certificates to trust: of authorities, or the listener's own. Then its name is not checked: inside a
            cluster it has another one than in its certificate. Without a file the system's authorities are trusted.

    Raises:
        ListenerError: It is no such address, or the file cannot be read.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in _PORTS:
        raise ListenerError(f"expected the MQTT listener as mqtt://HOST:PORT or mqtts://HOST:PORT, got {url!r}")
    tls = _tls(ca_file) if parts.scheme == "mqtts" else None
    return Listener(host, port or _PORTS[parts.scheme], tls)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (ssl.SSLError, OSError) as error:
        raise ListenerError(f"expected certificates in {ca_file}: {error}") from None
    if ca_file is not None:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
