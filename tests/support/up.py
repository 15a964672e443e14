"""`fabwafer up` and other commands for tests, each in a process of its own, as a script would run them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import psutil

from fabwafer.commands.system import System, read_system
from fabwafer_local.supervisor import PARTS_FILE
from tests.support.running import wait_until


class Up:
    """A `fabwafer up` in a process of its own, as a script would run it.

    Args:
        data: Its data directory.
        arguments: Further ones.
        output: The file for what it prints; by default beside the data directory.
        env: Further environment.
    """

    def __init__(self, data: Path, *arguments: str, output: Path | None = None, **env: str) -> None:
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        self._output = output or data.parent / f"{data.name}.txt"
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fabwafer.cli", "up", "--data", str(data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | env,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        def there() -> bool:
            assert self.process.poll() is None or text in self.output, self.output
            return self.output.count(text) >= count

        wait_until(there, lambda: f"{text!r} in: {self.output}")

    def running(self) -> Self:
        self.wait_for("Running after")
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    @property
    def system(self) -> System:
        return read_system(self.data)

    def sessions(self) -> set[int]:
        """The sessions of its parts."""
        return {pid for pid, _ in json.loads((self.data / PARTS_FILE).read_text()).values()}

    def part(self, name: str) -> int:
        """The process id of a part."""
        return int(json.loads((self.data / PARTS_FILE).read_text())[name][0])


def left(up: Up, sessions: set[int]) -> list[str]:
    """The processes that still run: of the parts' sessions, or at work on the data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == up.process.pid or process.status() == psutil.STATUS_ZOMBIE:
                continue
            line = " ".join(process.cmdline())
            if os.getsid(process.pid) in sessions or f"{up.data}/" in line or f"--data {up.data} " in f"{line} ":
                found.append(line)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def fabwafer(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def records(up: Up, *arguments: str) -> list[dict[str, Any]]:
    shown = fabwafer("records", "--data", str(up.data), "--json", *arguments, cwd=up.data)
    assert shown.returncode == 0, shown.stderr
    return [json.loads(line) for line in shown.stdout.splitlines()]
