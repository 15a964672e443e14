"""The address of the MQTT listener, and which certificates are trusted there."""

import ssl
from pathlib import Path

import pytest

from fabwafer.service.listener import ListenerError, read_listener
from tests.support.certificates import make_certificate


def test_an_address_has_the_usual_port_of_its_scheme() -> None:
    plain, tls = read_listener("mqtt://broker"), read_listener("mqtts://broker")
    assert (str(plain), plain.tls) == ("mqtt://broker:1883", None)
    assert str(tls) == "mqtts://broker:8883"
    assert read_listener("mqtt://[::1]:1884").port == 1884


def test_without_a_file_the_name_in_the_certificate_counts_and_with_one_the_file_does(tmp_path: Path) -> None:
    file = make_certificate(tmp_path, "listener") / "tls.crt"
    usual, given = read_listener("mqtts://broker").tls, read_listener("mqtts://broker", file).tls
    assert usual is not None
    assert usual.check_hostname
    assert given is not None
    assert (given.check_hostname, given.verify_mode) == (False, ssl.CERT_REQUIRED)
    assert len(given.get_ca_certs()) == 1


@pytest.mark.parametrize("url", ["", "broker", "broker:1883", "http://broker", "mqtt://", "mqtt://broker:none"])
def test_another_address_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ListenerError, match="expected the MQTT listener as mqtt://HOST:PORT or mqtts://HOST:PORT, got"):
        read_listener(url)


def test_a_file_without_certificates_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ListenerError, match=r"expected certificates in .*missing"):
        read_listener("mqtts://broker", tmp_path / "missing")
    (tmp_path / "empty").touch()
    with pytest.raises(ListenerError, match=r"expected certificates in .*empty"):
        read_listener("mqtts://broker", tmp_path / "empty")
