"""Real device_auths for tests: `fabwafer device-auth` as a process beside a nats-server."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

from fabwafer.commands.system import System, write_system
from tests.support.nats_servers import NatsServer, free_ports
from tests.support.running import wait_until
from tests.support.streams import make_streams as make_streams  # noqa: PLC0414


class DeviceAuthProcess:
    """`fabwafer device-auth` beside a server; ended with the test."""

    def __init__(self, server: NatsServer, *, replicas: int = 1) -> None:
        self._server = server
        self._replicas = replicas
        self._process: subprocess.Popen[bytes] | None = None
        self._log = server.directory / "device-auth.log"
        (self._port,) = free_ports(1)

    def start(self, *, ready: bool = True) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "fabwafer.cli", "device-auth"),
                    *("--users-file", self._server.users_file, "--log-file", self._server.log_file),
                    *("--metrics-port", str(self._port), "--replicas", str(self._replicas)),
                ],
                env=os.environ
                | {"FABWAFER_NATS_SYSTEM_URL": self._server.sys_url, "FABWAFER_NATS_URL": self._server.url},
                stderr=log,
            )
        if ready:
            wait_until(self.ready, f"the device-auth was not ready: {self.log()[-5:]}")

    def ready(self) -> bool:
        return self._get("/readyz") is not None

    def _get(self, path: str) -> str | None:
        assert self._process is not None
        assert self._process.poll() is None, f"the device-auth ended: {self._log.read_text()[-3000:]}"
        try:
            with urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (URLError, OSError):
            return None

    def metric(self, name: str) -> float:
        """A counter's value, by its name with labels as Prometheus writes them."""
        for line in (self._get("/metrics") or "").splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"the device-auth has no metric {name}")

    def dropped(self, reason: str) -> float:
        return self.metric(f'fabwafer_mqtt_dropped_total{{reason="{reason}"}}')

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def stop(self) -> None:
        """Ends the device-auth in order; one that does not run is left alone."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            assert self._process.wait(timeout=20) == 0, "the device-auth did not end in order"
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._kill()
            raise
        return self

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self._kill()


def describe_system(directory: Path, server: NatsServer) -> None:
    """Writes what commands find a system by, as if one ran with this server."""
    nowhere = "http://127.0.0.1:9"
    write_system(
        directory,
        System(
            nats_url=server.url,
            mqtt_url=server.mqtt_url,
            inference_url=nowhere,
            metrics_url=nowhere,
            database_url=f"sqlite:///{directory}/records.db",
        ),
    )


def fabwafer(*arguments: str | Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of the command line on a data directory."""
    return subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", *arguments, "--data", data],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
