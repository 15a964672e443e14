"""A renewed certificate of the MQTT listener is taken over by device-auth; a broken one never reaches the server."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio

from fabwafer_bridge.certificate import CERTIFICATE, KEY, CertificateError, ListenerCertificate
from fabwafer_bridge.devices import Devices
from fabwafer_bridge.smoke_test import drawn_wafer_map
from tests.support.certificates import make_certificate
from tests.support.device_auth import DeviceAuthProcess, describe_system
from tests.support.devices import Device
from tests.support.nats_servers import NatsServer
from tests.support.running import wait_until
from tests.support.streams import make_streams

TOTAL = "fabwafer_device_auth_certificates_total"


class TlsListener:
    """A server whose listener has TLS, and device-auth with a certificate that is mounted as in a pod."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mounted = folder / "mounted"
        self.copy = folder / "copy"
        self.copy.mkdir(parents=True)
        self.mount(make_certificate(folder / "first", "first"))
        ListenerCertificate(self.mounted, self.copy).take_over()
        self.server = NatsServer(folder / "nats")
        with (folder / "nats" / "mqtt.conf").open("a") as config:
            config.write(f'tls {{ cert_file: "{self.copy / CERTIFICATE}", key_file: "{self.copy / KEY}" }}\n')
        self.device_auth = DeviceAuthProcess(self.server, tls_source=self.mounted, tls_copy=self.copy, echo_log="true")

    def mount(self, folder: Path) -> None:
        """Change the mounted files in one step, as the kubelet does."""
        fresh = self._folder / ".mounted.new"
        fresh.symlink_to(folder)
        fresh.replace(self.mounted)

    def counted(self, result: str) -> float:
        return self.device_auth.metric(f'{TOTAL}{{result="{result}"}}')

    @property
    def served(self) -> str:
        """The certificate that a client gets that connects now."""
        return ssl.get_server_certificate(("127.0.0.1", self.server.mqtt_port))

    async def device(self, camera: str) -> Device:
        client = await nats.connect(self.server.url)
        devices = await Devices.open(client)
        credentials = await devices.add("faba", camera)
        await devices.until_applied(30)
        await client.close()
        context = ssl.create_default_context(cadata=self.served)
        return Device(self.server.mqtt_url, credentials.user, credentials.password, camera, tls=context)


@pytest_asyncio.fixture
async def listener(tmp_path: Path) -> AsyncIterator[TlsListener]:
    made = TlsListener(tmp_path)
    with made.server:
        await make_streams(made.server.url)
        with made.device_auth:
            yield made


def text(folder: Path) -> str:
    return (folder / CERTIFICATE).read_text()


async def test_a_renewed_certificate_is_served_and_who_is_connected_stays(
    listener: TlsListener, tmp_path: Path
) -> None:
    with await listener.device("before") as device:
        lost: list[object] = []
        device.client.on_disconnect = lambda *reason: lost.append(reason)
        first = listener.served
        assert device.publish("fabwafer/faba/before/img/1", b"x")
        renewed = make_certificate(tmp_path / "second", "second")
        listener.mount(renewed)
        wait_until(lambda: listener.counted("ok") == 1, "it is taken over")
        assert listener.served == text(renewed) != first
        assert device.publish("fabwafer/faba/before/img/2", b"x")
        assert lost == []
    with await listener.device("after") as device:
        assert device.publish("fabwafer/faba/after/img/1", b"x")
    assert listener.counted("refused") == 0
    assert all((listener.copy / name).stat().st_mode & 0o777 == 0o600 for name in (CERTIFICATE, KEY))


async def test_a_broken_certificate_is_refused_and_stops_nothing(listener: TlsListener, tmp_path: Path) -> None:
    first = listener.served
    other_key = make_certificate(tmp_path / "other key", "second")
    (other_key / KEY).write_bytes((make_certificate(tmp_path / "third", "third") / KEY).read_bytes())
    listener.mount(other_key)
    wait_until(lambda: listener.counted("refused") == 1, "it is refused")
    assert [line["error"] for line in listener.device_auth.logged() if "certificate refused" in line["event"]] != []
    assert listener.served == first
    with await listener.device("meanwhile") as device:
        assert device.publish("fabwafer/faba/meanwhile/img/1", b"x")
    assert listener.device_auth.ready()
    listener.server.restart()
    wait_until(listener.device_auth.ready, "device-auth found the server again")
    assert listener.served == first

    mended = make_certificate(tmp_path / "mended", "mended")
    listener.mount(mended)
    wait_until(lambda: listener.counted("ok") == 1, "the mended one is taken over")
    assert listener.served == text(mended)
    assert listener.counted("refused") == 1


async def test_what_was_renewed_while_device_auth_was_away_is_taken_over(listener: TlsListener, tmp_path: Path) -> None:
    listener.device_auth.stop()
    renewed = make_certificate(tmp_path / "second", "second")
    listener.mount(renewed)
    listener.device_auth.start()
    wait_until(lambda: listener.served == text(renewed), "it is served")


async def test_commands_trust_the_certificate_that_they_are_given_and_no_other(
    listener: TlsListener, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    describe_system(data, listener.server)
    system = data / "system.json"
    system.write_text(system.read_text().replace("mqtt://", "mqtts://"))
    image = tmp_path / "wafer.png"
    image.write_bytes(drawn_wafer_map())

    def run(*arguments: str, trusted: Path) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"FABWAFER_MQTT_CA_FILE": str(trusted / CERTIFICATE)}
        command = [sys.executable, "-m", "fabwafer.cli", *arguments, "--data", str(data)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    added = await asyncio.to_thread(run, "device", "add", "faba", "mine", "--json", trusted=listener.mounted)
    assert added.returncode == 0, added.stderr
    credentials = json.loads(added.stdout)
    send = ["send", str(image), "--user", credentials["user"], "--password", credentials["password"], "--wait", "0"]
    sent = await asyncio.to_thread(run, *send, trusted=listener.mounted)
    assert sent.returncode == 0, sent.stderr
    stranger = make_certificate(tmp_path / "stranger", "first")
    refused = await asyncio.to_thread(run, *send, trusted=stranger)
    assert refused.returncode == 1
    assert "its certificate is not trusted" in refused.stderr


async def test_the_servers_log_is_repeated(listener: TlsListener) -> None:
    lines = listener.server.log_file.read_text().splitlines()
    wait_until(
        lambda: set(lines) <= set(listener.device_auth.log.read_text().splitlines()), "each line stands in the output"
    )


async def test_half_a_copy_is_mended_before_the_server_is_asked_for_anything(
    listener: TlsListener, tmp_path: Path
) -> None:
    listener.device_auth.stop()
    other = make_certificate(tmp_path / "other", "other")
    (listener.copy / KEY).write_bytes((other / KEY).read_bytes())  # as after a kill between the two files
    listener.device_auth.start()
    wait_until(listener.device_auth.ready, "the users are in place")
    with await listener.device("after") as device:
        assert device.publish("fabwafer/faba/after/img/1", b"x")


def test_what_the_server_refuses_is_put_back_and_not_tried_again(tmp_path: Path) -> None:
    source, target = make_certificate(tmp_path / "source", "first"), tmp_path / "copy"
    target.mkdir()
    certificate = ListenerCertificate(source, target)
    certificate.take_over()
    first = text(target)
    second = make_certificate(tmp_path / "second", "second")
    for name in (CERTIFICATE, KEY):
        (source / name).write_bytes((second / name).read_bytes())
    assert certificate.take_over()
    certificate.put_back()
    assert text(target) == first
    assert not certificate.take_over()


def copy(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fabwafer_bridge.certificate", "--source", source, "--copy", target],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_copy_must_be_sound_and_a_later_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    broken = make_certificate(tmp_path / "broken", "broken")
    (broken / CERTIFICATE).write_text("no certificate")
    refused = copy(broken, target)
    assert refused.returncode == 1
    assert f"expected a certificate in {broken / CERTIFICATE}" in refused.stderr
    assert list(target.iterdir()) == []
    sound = make_certificate(tmp_path / "sound", "sound")
    assert copy(sound, target).returncode == 0
    again = copy(broken, target)
    assert (again.returncode, "the one before stays" in again.stderr) == (0, True)
    assert text(target) == text(sound)


def test_a_key_with_a_pass_phrase_and_a_missing_file_are_refused_with_a_sentence(tmp_path: Path) -> None:
    source = make_certificate(tmp_path / "source", "locked")
    key = source / KEY
    subprocess.run(
        ["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", key],
        check=True,
        capture_output=True,
    )
    certificate = ListenerCertificate(source, tmp_path / "copy")
    with pytest.raises(CertificateError, match="pass phrase"):
        certificate.take_over()
    assert not certificate.take_over(), "it is refused once"
    key.unlink()
    with pytest.raises(CertificateError, match=r"cannot read .*tls\.key: No such file"):
        certificate.take_over()
