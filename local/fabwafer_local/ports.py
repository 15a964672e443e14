"""Ports on 127.0.0.1: free ones, unless the user names them."""

import contextlib
import socket
from collections.abc import Mapping
from typing import NamedTuple


class Ports(NamedTuple):
    """Where a local system listens."""

    mqtt: int
    nats: int
    inference: int
    metrics: int


def free_ports(count: int) -> list[int]:
    """Finds ports that nobody listens on; all are held until the last is found, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        return ports


def chosen_ports(given: Mapping[str, int | None]) -> list[int]:
    """Takes the ports that were given, and free ones for the rest.

    Args:
        given: Ports by the option that names them, None where a free one will do.

    Raises:
        OSError: A port that was given cannot be had.
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
