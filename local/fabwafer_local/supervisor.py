"""Starts the parts of a local system, restarts those that die, and leaves no process behind."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psutil

from fabwafer.errors import FabwaferError
from fabwafer.service.files import replace_file
from fabwafer_local.private import UMASK
from fabwafer_local.room import Room

PARTS_FILE: Final = "parts.json"
PARTS_BYTES: Final = 1024
READY_SECONDS: Final = 90.0
FULL_DISK_SECONDS: Final = 5.0
"""Pause before a part that died on a full disk is started again."""
RESTART_SECONDS: Final = 10.0
"""How long a part that is to be started again has to end by itself."""
DEATHS: Final = 5
WITHIN_SECONDS: Final = 60.0
"""A part that died `DEATHS` times within this time is not started again."""
LAST_LINES: Final = 15
LOG_BYTES: Final = 16 * 1024**2
"""A log above this size is renamed at the part's next start; one old log is kept."""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How TorchServe is started, as `torchserve.prepare` returns it."""

    argv: list[str]
    env: Mapping[str, str]
    temporary: Path
    ready_url: str
    key_file: Path


@dataclass(frozen=True, slots=True)
class Part:
    """One program of the system.

    Attributes:
        name: Its name in messages.
        argv: Its command line.
        env: Its environment.
        log: The file for its output.
        ready: Returns whether it does its work.
        own_log: The file that it logs to itself, where that is another.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    own_log: Path | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended: its exit code, its standard output, and its standard error."""

    code: int
    printed: str
    complaint: str


class PartFailedError(FabwaferError):
    """A part does not run. The text names it and holds the last lines of its log."""

    def __init__(self, part: Part, what: str) -> None:
        lines = last_lines(part.own_log or part.log) or last_lines(part.log)
        super().__init__(
            f"{part.name} {what}. Its last lines ({part.own_log or part.log}):\n"
            + ("\n".join(f"  {line}" for line in lines) or "  (none)")
        )


def last_lines(log: Path, count: int = LAST_LINES) -> list[str]:
    """Return the last lines of a log, each cut to 300 characters; none when there is no log."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        return [line[:300] for line in file.read().decode(errors="replace").splitlines()[-count:]]
    return []


def fabwafer_command(*arguments: str) -> list[str]:
    """Return the command line of one of fabwafer's own commands, with this Python."""
    return [sys.executable, "-m", "fabwafer.cli", *arguments]


class Supervisor:
    """Runs parts, each in a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor.

    Args:
        directory: Holds the list of the processes started, so that the next supervisor can end them after a kill.
        say: Shows the user what happens, a line at a time.
        room: The room on the disk; while there is none, a part that dies is started again however often it does.
    """

    def __init__(self, directory: Path, say: Callable[[str], None], room: Room) -> None:
        self._file = directory / PARTS_FILE
        self._room = room
        self._say = say
        self._restarting: set[str] = set()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._written: dict[str, tuple[int, float]] = {}
        self._watchers: list[asyncio.Task[None]] = []

    def clean(self) -> int:
        """End the processes that a killed supervisor left behind.

        Returns:
            How many processes there were.
        """
        try:
            left = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return 0
        ended = 0
        for pid, created in left.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                # The process id may belong to another process by now.
                if abs(psutil.Process(pid).create_time() - created) > 1:
                    continue
            ended += end_session(pid, created)
        self._file.unlink(missing_ok=True)
        return ended

    async def start(self, part: Part) -> None:
        """Start a part, wait until it is ready, and from then on start it again when it dies.

        Raises:
            PartFailedError: It ended, or was not ready in time.
        """
        while True:
            await self._spawn(part)
            try:
                await self._until_ready(part)
            except PartFailedError:
                if not self._room.short():
                    raise
                end_session(self._running[part.name].pid, self._written[part.name][1])
                await self._room.wait()
            else:
                break
        self._watchers.append(asyncio.create_task(self._watch(part)))

    async def restart(self, name: str) -> None:
        """End a part that runs but does not do its work, so that it is started again; this is no death."""
        process = self._running[name]
        self._restarting.add(name)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), timeout=RESTART_SECONDS)
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    async def watch(self) -> None:
        """Wait until a part fails for good; return only by raising.

        Raises:
            PartFailedError: A part died too often.
        """
        done, _ = await asyncio.wait(self._watchers, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self, names: Sequence[str], seconds: float) -> None:
        """End parts by SIGTERM, and by SIGKILL those that have not ended within `seconds`."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers.clear()
        processes = {name: self._running.pop(name) for name in names if name in self._running}
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if processes:
            await asyncio.wait([asyncio.create_task(process.wait()) for process in processes.values()], timeout=seconds)
        for name, process in processes.items():
            if process.returncode is None:
                self._say(f"{name} did not end within {seconds:g} s and was killed")
            end_session(process.pid, self._written[name][1])
            await process.wait()
            del self._written[name]
        self._write()

    async def run(self, name: str, argv: Sequence[str]) -> Done:
        """Run a program to its end; it is killed when this is cancelled, or by the next supervisor."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            umask=UMASK,
        )
        self._note(name, process.pid)
        try:
            printed, complaint = await process.communicate()
        finally:
            end_session(process.pid, self._written[name][1])
            await process.wait()
            del self._written[name]
            self._write()
        return Done(process.returncode or 0, printed.decode(), complaint.decode().strip())

    async def _spawn(self, part: Part) -> None:
        part.log.parent.mkdir(parents=True, exist_ok=True)
        if part.log.exists() and part.log.stat().st_size > LOG_BYTES:
            part.log.replace(part.log.with_suffix(".old.log"))
        with contextlib.ExitStack() as stack:
            try:
                part.log.touch(mode=0o600)
                log: IO[bytes] | int = stack.enter_context(part.log.open("ab"))
            except OSError:  # a full disk
                log = asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(
                *part.argv,
                env=dict(part.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=UMASK,
            )
        self._running[part.name] = process
        self._note(part.name, process.pid)

    def _note(self, name: str, pid: int) -> None:
        created = time.time()
        with contextlib.suppress(psutil.NoSuchProcess):
            created = psutil.Process(pid).create_time()
        self._written[name] = (pid, created)
        self._write()

    def _write(self) -> None:
        if not self._written:
            self._file.unlink(missing_ok=True)
            return
        content = json.dumps(self._written).ljust(PARTS_BYTES).encode()
        try:
            if self._file.exists():  # in its place, which needs no room on a full disk
                with self._file.open("r+b") as file:
                    file.write(content)
            else:
                replace_file(self._file, content)
        except OSError as error:
            self._say(f"the processes cannot be written to {self._file}: {error}")

    async def _until_ready(self, part: Part) -> None:
        process = self._running[part.name]
        deadline = time.monotonic() + READY_SECONDS
        while not await part.ready():
            if process.returncode is not None:
                raise PartFailedError(part, f"ended with {process.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise PartFailedError(part, f"was not ready within {READY_SECONDS:g} s")
            await asyncio.sleep(0.05)

    async def _watch(self, part: Part) -> None:
        deaths: deque[float] = deque(maxlen=DEATHS)
        while True:
            process = self._running[part.name]
            code = await process.wait()
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            if part.name in self._restarting:
                self._restarting.discard(part.name)
            elif self._room.short():
                deaths.clear()
                self._say(f"{part.name} died ({cause}) while the disk is full: starting it again")
                await asyncio.sleep(FULL_DISK_SECONDS)
            else:
                deaths.append(time.monotonic())
                if len(deaths) == DEATHS and deaths[-1] - deaths[0] < WITHIN_SECONDS:
                    raise PartFailedError(part, f"died {DEATHS} times within {WITHIN_SECONDS:g} s, last with {code}")
                self._say(f"{part.name} died ({cause}): starting it again")
            # Processes that it started must not hold its ports, or work beside the new one.
            end_session(process.pid, self._written[part.name][1])
            await self._spawn(part)


def end_session(session: int, created: float) -> int:
    """Kill every process of a session that was started for a part.

    Args:
        session: The process id of the session's leader, which may have ended.
        created: When the leader was started; older processes are not its own.

    Returns:
        How many processes there were.
    """
    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session and process.create_time() >= created - 1:
                process.kill()
                ended.append(process)
    psutil.wait_procs(ended, timeout=3)
    return len(ended)
