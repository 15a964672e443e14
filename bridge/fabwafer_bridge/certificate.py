"""The certificate of the MQTT listener: taken over from where it is mounted, once it is known to be sound.

A nats-server reads its certificate with every reload, and at its start. With a broken one it refuses the reload, also
of the users, and does not start. So it reads a copy, and a broken certificate never comes into the copy.

`python -m fabwafer_bridge.certificate --source DIR --copy DIR` makes the first copy, before the server starts.
"""

import argparse
import hashlib
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Final

from fabwafer.errors import FabwaferError
from fabwafer.service.files import replace_file

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
_FILES: Final = (CERTIFICATE, KEY)


class CertificateError(FabwaferError):
    """A certificate that cannot be used. The text says where it is and why."""


class ListenerCertificate:
    """The certificate and the key of the MQTT listener: `tls.crt` and `tls.key`, as in a Secret of Kubernetes.

    Args:
        source: The folder where they are mounted, and changed by others.
        copy: The folder that the server reads.
    """

    def __init__(self, source: Path, copy: Path) -> None:
        self._source, self._copy = source, copy
        self._refused = ""
        self._before: dict[str, bytes] = {}

    def take_over(self) -> bool:
        """Copy the certificate, if it is another one; return whether it was. A refused one is passed over.

        Raises:
            CertificateError: It is another one, and cannot be used; the copy stays as it was.
        """
        found = self._read(self._source)
        present = self._read(self._copy, missing=True)
        digest = _digest(found)
        if found == present or digest == self._refused:
            return False
        try:
            _check(found)
        except (ssl.SSLError, OSError) as error:
            self._refused = digest
            raise CertificateError(
                f"expected a certificate in {self._source / CERTIFICATE} and its key in {self._source / KEY}: {error}"
            ) from None
        self._write(found)
        self._refused, self._before = "", present
        return True

    def put_back(self) -> None:
        """Restore the copy that was there before the last one was taken over; the server refused that one."""
        self._refused = _digest(self._read(self._copy))
        self._write(self._before)

    @property
    def changed_at(self) -> float:
        """When the copy was changed last, in seconds since 1970; 0 where there is none."""
        return max((path.stat().st_mtime for name in _FILES if (path := self._copy / name).exists()), default=0.0)

    def _read(self, folder: Path, *, missing: bool = False) -> dict[str, bytes]:
        found = {}
        for name in _FILES:
            try:
                found[name] = (folder / name).read_bytes()
            except OSError as error:
                if not (missing and isinstance(error, FileNotFoundError)):
                    raise CertificateError(f"cannot read {folder / name}: {error.strerror}") from None
        return found

    def _write(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            replace_file(self._copy / name, content)


def _check(files: dict[str, bytes]) -> None:
    # ssl takes files by name alone, and those mounted may change meanwhile.
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in _FILES]
        for path in paths:
            replace_file(path, files[path.name])
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths[0], paths[1], password=_no_phrase)


def _digest(files: dict[str, bytes]) -> str:
    return hashlib.sha256(b"\0".join(files.values())).hexdigest()


def _no_phrase() -> str:
    """Fail for a key with a pass phrase, which a server could not be asked for."""
    raise OSError("the key has a pass phrase")


def main() -> None:
    """Make the first copy; one that is there stays where the mounted certificate is broken."""
    parser = argparse.ArgumentParser(prog="python -m fabwafer_bridge.certificate", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the folder with the mounted tls.crt and tls.key")
    parser.add_argument("--copy", type=Path, required=True, help="the folder that the server reads")
    arguments = parser.parse_args()
    try:
        ListenerCertificate(arguments.source, arguments.copy).take_over()
    except (CertificateError, OSError) as error:
        if not (arguments.copy / KEY).exists():
            raise SystemExit(str(error)) from None
        print(f"{error}; the one before stays", file=sys.stderr)


if __name__ == "__main__":
    main()
