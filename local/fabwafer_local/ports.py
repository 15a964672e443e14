"""Ports on 127.0.0.1: those that the user names, and free ones."""

import contextlib
import socket
from collections.abc import Mapping
from typing import NamedTuple


class Ports(NamedTuple):
    """The ports of a local system."""

    mqtt: int
    nats: int
    inference: int
    metrics: int


def free_ports(count: int) -> list[int]:
    """Return free ports; all are bound until the last is found, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        return ports


def chosen_ports(given: Mapping[str, int | None]) -> list[int]:
    """Return the ports that were given, and free ones for the rest.

    Args:
        given: Ports by the option that names them; None asks for a free one.

    Raises:
        OSError: A port that was given is not free.
    """
    ports = [port or free for port, free in zip(given.values(), free_ports(len(given)), strict=True)]
    for option, port in given.items():
        if port is None:
            continue
        if ports.count(port) > 1:
            raise OSError(f"{option} {port}: expected a port of its own, another option names it too")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise OSError(f"{option} {port}: the port cannot be had ({error.strerror})") from None
    return ports
