"""device-auth for tests: `fabwafer device-auth` as a process beside a real nats-server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

from fabwafer.commands.system import System, write_system
from fabwafer_local.ports import free_ports
from tests.support.nats_servers import BRIDGE_PASSWORD, BRIDGE_USER, DEVICE_AUTH_PASSWORD, NatsServer
from tests.support.running import _Process, wait_until


class DeviceAuthProcess(_Process):
    """`fabwafer device-auth` beside a server; ended with the test."""

    def __init__(self, server: NatsServer, *, replicas: int = 1, **settings: object) -> None:
        (self._port,) = free_ports(1)
        env = os.environ | {
            "FABWAFER_NATS_SYSTEM_URL": server.plain_url,
            "FABWAFER_NATS_SYSTEM_USER": "device-auth",
            "FABWAFER_NATS_SYSTEM_PASSWORD": DEVICE_AUTH_PASSWORD,
            "FABWAFER_NATS_URL": server.plain_url,
            "FABWAFER_NATS_USER": BRIDGE_USER,
            "FABWAFER_NATS_PASSWORD": BRIDGE_PASSWORD,
            **{f"FABWAFER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        argv = [sys.executable, "-m", "fabwafer.cli", "device-auth"]
        argv += ["--users-file", str(server.users_file), "--log-file", str(server.log_file)]
        argv += ["--metrics-port", str(self._port), "--replicas", str(replicas)]
        super().__init__(argv, env, server.directory / "device-auth.log")

    def start(self, *, ready: bool = True) -> None:
        self.spawn()
        if ready:
            wait_until(self.ready, f"device-auth was not ready: {self.logged()[-5:]}")

    def ready(self) -> bool:
        return self._get("/readyz") is not None

    def _get(self, path: str) -> str | None:
        assert self._process is not None
        assert self._process.poll() is None, f"device-auth ended: {self.last_words()}"
        try:
            with urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (URLError, OSError):
            return None

    def metric(self, name: str) -> float:
        """Return a counter's value, by its name with labels as Prometheus writes them."""
        for line in (self._get("/metrics") or "").splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"device-auth has no metric {name}")

    def dropped(self, reason: str) -> float:
        return self.metric(f'fabwafer_mqtt_dropped_total{{reason="{reason}"}}')

    def logged(self) -> list[dict[str, Any]]:
        """Return its own lines, without those of the server that it repeats."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self) -> int | None:
        """End device-auth, and check that it ends in order; one that does not run is left alone."""
        code = super().stop()
        assert not code, "device-auth did not end in order"
        return code

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            super().stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            super().stop()


def describe_system(directory: Path, server: NatsServer) -> None:
    """Write the system file that commands read, as if a system ran with this server."""
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
    """Run a command on a data directory."""
    return subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", *arguments, "--data", data],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
