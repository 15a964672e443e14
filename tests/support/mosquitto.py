"""A real Mosquitto for tests, from Debian's package, with the configuration that the guide gives."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from fabwafer_local.ports import free_ports

GUIDE: Final = Path(__file__).parents[2] / "docs" / "gateway.md"
LOCATION = "persistence_location"
START_SECONDS = 30


def program() -> str | None:
    """Return the program, which Debian installs outside of some users' PATH."""
    return shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")


def guides_configuration() -> str:
    """Return the lines of mosquitto.conf that the guide gives."""
    [block] = re.findall(r"^```conf\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


class Mosquitto:
    """A broker in a directory of its own; its port and its messages survive stop, kill and start.

    Args:
        directory: Holds its configuration, log and messages.
        configuration: Lines of mosquitto.conf; messages are stored below `directory`.
        listener: More lines for the listener, such as certificates.
    """

    def __init__(self, directory: Path, configuration: str, listener: str = "") -> None:
        directory.mkdir(parents=True)
        (self.port,) = free_ports(1)
        self.log = directory / "mosquitto.log"
        self._config = directory / "mosquitto.conf"
        lines = [line for line in configuration.splitlines() if not line.startswith(LOCATION)]
        lines += [f"{LOCATION} {directory}/", "user root"]  # as root it would become a user who may not write there
        lines += [f"listener {self.port} 127.0.0.1", "allow_anonymous true", listener]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The broker's address."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        path = program()
        assert path is not None
        before = self._times_started()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([path, "-c", self._config], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while self._times_started() == before:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"mosquitto did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _times_started(self) -> int:
        return self.log.read_text().count(" running") if self.log.exists() else 0

    def stop(self) -> None:
        """End it in order, so that it saves its messages; one that does not run is left alone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill it, like a power cut."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Publisher:
    """A camera on the broker: it publishes with QoS 1, and again what was not acknowledged."""

    def __init__(self, broker: Mosquitto) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="camera", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.max_queued_messages_set(0)
        self._client.on_publish = self._on_publish
        self.acknowledged = 0
        self._client.connect("127.0.0.1", broker.port, keepalive=10)
        self._client.loop_start()

    def _on_publish(self, *_: object) -> None:
        self.acknowledged += 1

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish a message, or queue it until the broker accepts it."""
        code = self._client.publish(topic, payload, qos=qos).rc
        assert code in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN}, code

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def needs_mosquitto() -> None:
    """Skip the test where there is no Mosquitto."""
    if program() is None:
        pytest.skip("needs Mosquitto: install the Debian package mosquitto")


@pytest.fixture
def mosquitto(tmp_path: Path, needs_mosquitto: None) -> Iterator[Mosquitto]:
    """One broker, configured as the guide says."""
    with Mosquitto(tmp_path / "mosquitto", guides_configuration()) as broker:
        yield broker
