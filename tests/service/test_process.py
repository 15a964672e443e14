"""A process runs until a signal, ends when a task of it fails, and ends its tasks whatever they do."""

import asyncio
import os
import signal

import pytest

from fabwafer.service.process import end, first_of, until_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_work_goes_on_until_a_signal_and_finishes_what_is_under_way(number: signal.Signals) -> None:
    steps: list[str] = []

    async def work(stopping: asyncio.Event) -> None:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), number)
        await stopping.wait()
        await asyncio.sleep(0)
        steps.append("finished")

    await asyncio.wait_for(until_signal(work), 10)
    assert steps == ["finished"]
    assert not asyncio.get_running_loop().remove_signal_handler(number), "a second signal ends the process"


async def test_of_endless_tasks_the_first_that_fails_is_raised() -> None:
    async def fail() -> None:
        raise ConnectionError("gone")

    endless = asyncio.create_task(asyncio.sleep(3600))
    with pytest.raises(ConnectionError, match="gone"):
        await first_of(asyncio.Event(), endless, asyncio.create_task(fail()))
    await end([endless])


async def test_asked_to_stop_nothing_is_raised_and_the_tasks_still_run() -> None:
    stopping = asyncio.Event()
    stopping.set()
    endless = asyncio.create_task(asyncio.sleep(3600))
    await first_of(stopping, endless)
    assert not endless.done()
    await end([endless])


async def test_a_task_that_loses_its_first_cancellation_ends() -> None:
    lost: list[int] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end([task])
    assert task.cancelled()
    assert lost == [1]


async def test_tasks_that_have_ended_are_left_alone() -> None:
    async def done() -> int:
        return 7

    task = asyncio.create_task(done())
    await asyncio.sleep(0)
    await end([task])
    assert task.result() == 7
