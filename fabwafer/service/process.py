"""The life of a long-running process: run until a signal, and end every task."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

AGAIN_AFTER: Final = 0.5
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def until_signal(
    work: Callable[[asyncio.Event], Awaitable[None]], signals: Sequence[signal.Signals] = STOP_SIGNALS
) -> None:
    """Run the work of a process until a signal asks it to stop.

    Args:
        work: Is given an event that the signals set. It finishes what is under way and returns.
        signals: Which signals ask the process to stop.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, stopping.set)
    try:
        await work(stopping)
    finally:  # from here on a second signal ends the process at once
        for number in signals:
            loop.remove_signal_handler(number)


async def first_of(stopping: asyncio.Event, *tasks: asyncio.Task[Any]) -> None:
    """Wait until the process is asked to stop, or one of its endless tasks has failed.

    Raises:
        Exception: What a task failed of; the process should end and be started anew.
    """
    stop = asyncio.create_task(stopping.wait())
    try:
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
    for task in done - {stop}:
        task.result()  # an endless task is done only because it raised


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, again and again until each has ended.

    Once is not enough: `asyncio.wait_for` of Python 3.11 loses a cancellation that comes in the moment in which what it
    waits for is done (CPython issue 86296), and a loop around it would go on for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_AFTER)
