"""What the MQTT listener drops by itself, read from the server's log: nobody else would ever hear of it."""

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
    "unavailable",
    "protocol",
)
"""Every reason there is:
permission: published under another device's name; the device got its PUBACK all the same
unknown_topic: published on a topic that is not ours; the device got its PUBACK all the same
bad_topic: a topic with a space, a wildcard or the like; the server closed the connection
oversize: above the server's max_payload; the server closed the connection
qos2: published with QoS 2, which is switched off; the server closed the connection
not_stored: the server could not store it (full), gave no PUBACK and closed the connection: the device still has it
subscription: subscribed to what it must not read
authentication: signed in with a wrong user or password
client_id: signed in with a client id that the server does not take, such as one with a dot
unavailable: the server could not do what a connection needs just then; the device tries again
protocol: anything else that is not MQTT 3.1.1 as the server speaks it"""

# A client chooses its id, user and topic; the server writes them as quoted strings of Go, so that a quotation mark or
# a line break inside cannot pass for the end.
_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
_LINE: Final = re.compile(
    rf"\[\d+\] \S+ \S+ \[ERR\] (?P<address>\S+) - (?P<kind>mid|cid):(?P<connection>\d+)(?: - {_QUOTED})? - (?P<what>.*)"
)
_USER: Final = re.compile(rf"authentication error - User {_QUOTED}")
_OWN_SUBJECT: Final = re.compile(r'Publish Violation - Subject "fabwafer\.[^."]+\.[^."]+\.(img|prediction)\.[^."]+"')

# The first that the text starts with counts. None is not a drop: it comes with another line that counts.
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
        connection: The server's number of the connection.
        address: Where the client connected from.
        client_id: What the client called itself; empty before it said so.
        user: Known here only when it was not let in.
        what: The server's words.
    """

    reason: str
    connection: int
    address: str
    client_id: str
    user: str | None
    what: str


def read_drop(line: str) -> Drop | None:
    """Recognises a line of the server's log (nats-server 2.15) that tells of something dropped."""
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
    # A NATS client is no device, unless it tries a device's password where only MQTT is allowed.
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


def grouped(lines: list[str]) -> dict[tuple[int, str], tuple[Drop, int]]:
    """The drops in some lines by connection and reason: the last one of each, and how many there were.

    A device that floods is so named once a batch and not once a message.
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
    """Reads a log that its writer renames and starts anew when it is full, each line once.

    Args:
        log_file: The log; the full ones lie beside it under its name with the time appended.
        position_file: Where it is kept how far was read, so that the next process goes on from there.
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
        """The complete lines that came since, oldest first, as many as are read at once; none when all is read."""
        while True:
            files = self._files()
            if not files:
                return []
            at = next((index for index, (_, inode) in enumerate(files) if inode == self._inode), None)
            if at is None:
                # The file read last is gone: what is left is all newer.
                at = 0
                self._inode, self._offset = files[0][1], 0
            lines = self._read(files[at][0])
            if lines or at == len(files) - 1:
                return lines
            self._inode, self._offset = files[at + 1][1], 0

    def remember(self) -> None:
        """Stores how far was read; call it after what was read has been dealt with."""
        replace_file(self._position_file, json.dumps({"inode": self._inode, "offset": self._offset}))

    def _files(self) -> list[tuple[Path, int]]:
        """The log and its predecessors with their inodes, oldest first."""
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
                if file.tell() < self._offset:  # another file has taken the number of one that is gone
                    self._offset = 0
                file.seek(self._offset)
                data = file.read(READ_AT_ONCE)
        except FileNotFoundError:  # renamed just now: found under its new name the next time
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.decode(errors="replace").splitlines()
