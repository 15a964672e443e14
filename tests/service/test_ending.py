"""A task that loses a cancellation is ended all the same."""

import asyncio

from fabwafer.service.process import end


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
