"""Reads from a nats-server's log what its MQTT listener drops; the server reports it nowhere else."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fabwafer.service.files import replace_file

READ_AT_ONCE: Final = 1 << 20

REASONS: Final = (
    "permission",
    "unknown_topic",
    "bad_topic",
    "oversize",
    "qos2",
    "not_stored",
    "subscription",
    "authentication",
    "client_id",
    "client_id_taken",
    "unavailable",
    "protocol",
)
"""Every reason there is:
permission: published under another device's name; the device got a PUBACK all the same
unknown_topic: published on a topic that is not fabwafer's; the device got a PUBACK all the same
bad_topic: a topic with a space, a wildcard or the like; the server closed the connection
oversize: above the server's max_payload; the server closed the connection
qos2: published with QoS 2, which is switched off; the server closed the connection
not_stored: the stream is full; the server sent no PUBACK and closed the connection, so the device still has it
subscription: subscribed to topics that it must not read
authentication: a wrong user or password
client_id: a client id that the server does not accept, such as one with a dot
client_id_taken: another user connected with the client id; the server closed the connection of the first
unavailable: the server could not set up a connection at that moment; the device tries again
protocol: anything else that is not MQTT 3.1.1 as the server implements it"""

# A client chooses its id, user and topic; the server writes them as quoted strings of Go, so that a quotation mark or
# a line break inside cannot be taken for the end.
_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
_LINE: Final = re.compile(
    rf"\[\d+\] \S+ \S+ \[ERR\] (?P<address>\S+) - (?P<kind>mid|cid):(?P<connection>\d+)(?: - {_QUOTED})? - (?P<what>.*)"
)
_TAKEN: Final = re.compile(
    rf"\[\d+\] \S+ \S+ \[WRN\] (?P<address>\S+) - mid:(?P<connection>\d+) - {_QUOTED} - "
    r'(?:Replacing old client "(?P<before_address>\S+) - mid:(?P<before>\d+)\D.*" since both have the same client ID|'
    r"Closing because a remote connection has started with the same client ID:) .*"
)
_USER: Final = re.compile(rf"authentication error - User {_QUOTED}")
_OWN_SUBJECT: Final = re.compile(r'Publish Violation - Subject "fabwafer\.[^."]+\.[^."]+\.(img|prediction)\.[^."]+"')

# The first prefix that matches counts. None is no drop of its own: another line that is logged with it counts.
_BEGINNINGS: Final[tuple[tuple[str, str | None], ...]] = (
    ("Publish Violation", "unknown_topic"),
    ("Subscription Violation", "subscription"),
    ("invalid topic ", None),
    ("topic filter cannot be empty", "subscription"),
    ("character not supported for MQTT topics", "bad_topic"),
    ("wildcards not allowed in publish's topic", "bad_topic"),
    ("invalid null character in topic", "bad_topic"),
    ("invalid utf8 for topic", "bad_topic"),
    ("topic cannot be empty", "bad_topic"),
    ("maximum payload exceeded", "oversize"),
    ("QoS=2 is disabled", "qos2"),
    ("JetStream failed a pipelined", "not_stored"),
    ("ack pipeline stopped", None),
    ("authentication error", "authentication"),
    ("unable to connect: authentication error", None),
    ("unable to connect: ", "unavailable"),
    ("invalid character in client ID", "client_id"),
)


@dataclass(frozen=True, slots=True)
class Drop:
    """Something that the server dropped.

    Attributes:
        reason: One of REASONS.
        connection: The server's number for the connection.
        address: Where the client connected from.
        client_id: The client's id; empty before its CONNECT.
        user: Known here only when authentication failed.
        what: The server's message.
    """

    reason: str
    connection: int
    address: str
    client_id: str
    user: str | None
    what: str


def read_drop(line: str) -> Drop | None:
    """Parse a line of the server's log (nats-server 2.15); return None if nothing was dropped."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    what = match["what"]
    reason: str | None = "protocol"
    for beginning, named in _BEGINNINGS:
        if what.startswith(beginning):
            reason = named
            break
    if _OWN_SUBJECT.fullmatch(what):
        reason = "permission"
    # A NATS client is no device, unless it tries a device's credentials, which are for MQTT only.
    if reason is None or (match["kind"] == "cid" and reason != "authentication"):
        return None
    user = _USER.match(what)
    return Drop(
        reason=reason,
        connection=int(match["connection"]),
        address=match["address"],
        client_id=match[4] or "",
        user=user[1] if user else None,
        what=what[:300],
    )


@dataclass(frozen=True, slots=True)
class TakenClientId:
    """A connection that the server closed since another one came with its client id.

    Attributes:
        client_id: The client id.
        closed: The server's number for the connection that it closed.
        address: Where that one came from.
        by: The number of the one that came; None if it came to another server of the cluster.
    """

    client_id: str
    closed: int
    address: str
    by: int | None


def read_taken_client_id(line: str) -> TakenClientId | None:
    """Parse a line of the server's log (nats-server 2.15); return None if no client id was taken."""
    match = _TAKEN.fullmatch(line)
    if match is None:
        return None
    if match["before"] is None:
        return TakenClientId(match[3], int(match["connection"]), match["address"], None)
    return TakenClientId(match[3], int(match["before"]), match["before_address"], int(match["connection"]))


def grouped(lines: list[str]) -> dict[tuple[int, str], tuple[Drop, int]]:
    """Return the drops in some lines by connection and reason: the last of each, and how many there were.

    So a device that floods is logged once a batch and not once a message.
    """
    found: dict[tuple[int, str], Drop] = {}
    times: Counter[tuple[int, str]] = Counter()
    for line in lines:
        if (drop := read_drop(line)) is not None:
            key = (drop.connection, drop.reason)
            found[key] = drop
            times[key] += 1
    return {key: (drop, times[key]) for key, drop in found.items()}


class LogFollower:
    """Reads each line of a log once, over rotations by its writer, which renames a full file.

    Args:
        log_file: The log; full ones have the time appended to its name.
        position_file: Stores how far was read, so that the next process continues from there.
    """

    def __init__(self, log_file: Path, position_file: Path) -> None:
        self._log_file = log_file
        self._position_file = position_file
        try:
            position = json.loads(position_file.read_bytes())
            self._inode, self._offset = int(position["inode"]), int(position["offset"])
        except (OSError, ValueError, KeyError, TypeError):
            self._inode, self._offset = -1, 0

    def read(self) -> list[str]:
        """Return the next complete lines, oldest first, up to 1 MiB; none when all is read."""
        while True:
            files = self._files()
            if not files:
                return []
            at = next((index for index, (_, inode) in enumerate(files) if inode == self._inode), None)
            if at is None:
                # The file read last was deleted: all files left are newer.
                at = 0
                self._inode, self._offset = files[0][1], 0
            lines = self._read(files[at][0])
            if lines or at == len(files) - 1:
                return lines
            self._inode, self._offset = files[at + 1][1], 0

    def remember(self) -> None:
        """Store how far was read; call it after the lines have been processed."""
        replace_file(self._position_file, json.dumps({"inode": self._inode, "offset": self._offset}))

    def _files(self) -> list[tuple[Path, int]]:
        """Return the log and its predecessors with their inodes, oldest first."""
        # The appended time has leading zeros, so names sort by it.
        paths = [*sorted(self._log_file.parent.glob(f"{self._log_file.name}.*")), self._log_file]
        files = []
        for path in paths:
            try:
                files.append((path, path.stat().st_ino))
            except FileNotFoundError:
                continue
        return files

    def _read(self, path: Path) -> list[str]:
        try:
            with path.open("rb") as file:
                file.seek(0, 2)
                if file.tell() < self._offset:  # a new file has the inode of a deleted one
                    self._offset = 0
                file.seek(self._offset)
                data = file.read(READ_AT_ONCE)
        except FileNotFoundError:  # renamed just now: read under its new name the next time
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.decode(errors="replace").splitlines()
