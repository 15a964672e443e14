"""The supervisor on a full disk: it gives up no part, and the list of its processes stays right."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from fabwafer_local import supervisor
from fabwafer_local.room import Room
from fabwafer_local.supervisor import DEATHS, PARTS_FILE, Part, PartFailedError, Supervisor
from tests.support.small_disks import SmallDisk


class FullRoom(Room):
    """A room that is short until it is told otherwise."""

    full = True

    def short(self) -> bool:
        return self.full


async def always() -> bool:
    return True


def part(directory: Path, *argv: str) -> Part:
    return Part("part", argv, os.environ, directory / "part.log", always)


async def test_a_part_that_dies_on_a_full_disk_is_started_again_and_given_up_only_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FULL_DISK_SECONDS", 0.01)
    lines: list[str] = []
    room = FullRoom(tmp_path, lines.append)
    parts = Supervisor(tmp_path, lines.append, room)
    await parts.start(part(tmp_path, "false"))
    watching = asyncio.create_task(parts.watch())
    async with asyncio.timeout(60):
        while len(lines) < 2 * DEATHS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not watching.done()
        assert all("while the disk is full" in line for line in lines)
        room.full = False
        with pytest.raises(PartFailedError, match="died"):
            await watching
    await parts.stop(["part"], 1)


async def test_the_list_of_processes_is_written_on_a_full_disk(small_disk: SmallDisk) -> None:
    lines: list[str] = []
    parts = Supervisor(small_disk.path, lines.append, Room(small_disk.path, lines.append))

    def pid() -> int:
        return int(json.loads((small_disk.path / PARTS_FILE).read_text())["part"][0])

    await parts.start(part(small_disk.path, "sleep", "1000"))
    first = pid()
    small_disk.fill()
    await parts.restart("part")
    async with asyncio.timeout(60):
        while pid() == first:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    os.kill(pid(), 0)  # it runs
    await parts.stop(["part"], 5)
    assert not (small_disk.path / PARTS_FILE).exists()
    assert lines == []


async def test_a_part_that_is_restarted_has_not_died(tmp_path: Path) -> None:
    lines: list[str] = []
    parts = Supervisor(tmp_path, lines.append, Room(tmp_path, lines.append))
    await parts.start(part(tmp_path, "sleep", "1000"))
    for _ in range(DEATHS + 1):
        before = parts._running["part"].pid
        await parts.restart("part")
        async with asyncio.timeout(60):
            while parts._running["part"].pid == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert lines == []
    os.kill(parts._running["part"].pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not lines:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert lines == ["part died (SIGKILL): starting it again"]
    await parts.stop(["part"], 5)
