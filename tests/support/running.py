"""The running parts of a system for tests: a real TorchServe, a real bridge, each in a process of its own."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fabwafer.models.shipped import default_model
from fabwafer_bridge.champion import SILENT
from fabwafer_bridge.settings import StreamSettings
from fabwafer_local import torchserve
from fabwafer_local.ports import free_ports
from fabwafer_local.supervisor import end_session
from tests.support.streams import make_streams

PATIENCE = 90.0
"""Seconds after which a test that waits for progress gives up; nothing is measured by it."""


_BINARY = {"Content-Type": "application/octet-stream"}  # without one TorchServe takes a body for a form


def wait_until(done: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE) -> None:
    """Wait for progress."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what if isinstance(what, str) else what()}")
        time.sleep(0.05)


def answers(url: str, body: bytes | None = None) -> bool:
    """Tell whether an address answers with 200."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=_BINARY), timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def unready(url: str) -> str | None:
    """Return what `/readyz` of a process says against it; None when it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode().strip()
    except OSError as error:
        return repr(error)


class _Process:
    """A program in a session of its own, that can be killed and started again."""

    def __init__(self, argv: list[str], env: dict[str, str], log: Path) -> None:
        self._argv, self.environment, self.log = argv, env, log
        self._process: subprocess.Popen[bytes] | None = None
        self._created = 0.0

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._created = time.time()

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int | None:
        """SIGTERM, and everything it left behind by force. Returns its exit code."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            code = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            code = None
        end_session(self._process.pid, self._created - 2)
        self._process.wait()
        self._process = None
        return code

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def as_in_a_cluster(directory: Path) -> None:
    """Let the TorchServe of a directory ask for no token, and load nothing while it runs, as it is shipped."""
    config = directory / torchserve.CONFIG_FILE
    shipped = {"disable_token_authorization": "true", "enable_model_api": "false"}
    config.write_text(torchserve.configuration(config.read_text(), shipped))


class ModelServer(_Process):
    """TorchServe with the shipped model, as in a cluster: whoever reaches it may ask."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(5)
        spec = torchserve.prepare(
            directory, torchserve.build_archive(directory, default_model()), torchserve.TorchServePorts(*ports)
        )
        as_in_a_cluster(directory)
        super().__init__(spec.argv, dict(spec.env), directory / "torchserve.log")
        self.temporary = spec.temporary
        self.url = f"http://127.0.0.1:{ports[0]}"

    def start(self) -> None:
        """Start it, and wait until the model answers."""
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the model answers."""
        from fabwafer.maps.synthetic import sample
        from fabwafer.maps.wafermap import encode

        image = encode(sample(0, 1)[0][1])
        wait_until(lambda: answers(f"{self.url}/predictions/wafer", image), self.last_words)

    def kill(self) -> None:
        """Kill the Java process; its worker is ended before it is started again, as a supervisor does."""
        pid = self.pid
        super().kill()
        end_session(pid, self._created - 2)

    def kill_worker(self) -> None:
        """Kill the Python worker; TorchServe starts another."""
        for child in psutil.Process(self.pid).children(recursive=True):
            if "python" in child.name():
                child.send_signal(signal.SIGKILL)

    def stop(self) -> int | None:
        code = super().stop()
        shutil.rmtree(self.temporary, ignore_errors=True)
        return code


class Bridge(_Process):
    """The bridge, with settings as an operator gives them, and the streams that it waits for."""

    def __init__(
        self,
        directory: Path,
        *,
        nats_url: str,
        inference_url: str,
        database_url: str,
        only: str = "",
        replicas: int = 1,
        mqtt_max_bytes: int = StreamSettings().mqtt_max_bytes,
        **settings: object,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (port,) = free_ports(1)
        env = os.environ | {
            "FABWAFER_NATS_URL": nats_url,
            "FABWAFER_INFERENCE_URL": inference_url,
            "FABWAFER_DATABASE_URL": database_url,
            "FABWAFER_METRICS_PORT": str(port),
            **{f"FABWAFER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        argv = [sys.executable, "-m", "fabwafer.cli", "bridge", *(["--only", only] if only else [])]
        super().__init__(argv, env, directory / "bridge.log")
        self.url = f"http://127.0.0.1:{port}"
        self._nats_url = nats_url
        self._replicas, self._mqtt_max_bytes = replicas, mqtt_max_bytes
        self._has_streams = False

    def start(self) -> Self:
        """Make the streams at the first start, start the bridge, and wait until it carries messages."""
        if not self._has_streams:
            asyncio.run(
                make_streams(
                    self._nats_url,
                    replicas=self._replicas,
                    mqtt_max_bytes=self._mqtt_max_bytes,
                    max_bytes=StreamSettings().stream_max_bytes,
                )
            )
            self._has_streams = True
        self.spawn()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until it carries messages, though perhaps no model answers: many tests need none."""
        wait_until(lambda: (unready(self.url) or SILENT).startswith(SILENT), self.last_words)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that bear these labels; 0 when there are none."""
        return sum(
            sample.value
            for sample in samples(self.url)
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def samples(self) -> list[Sample]:
        """Return all samples of its metrics."""
        return samples(self.url)


def samples(url: str) -> list[Sample]:
    """Return all samples of a process's metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        text = response.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """One TorchServe for all tests that only ask it; what harms it brings its own."""
    server = ModelServer(tmp_path_factory.mktemp("torchserve"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
