"""Ending tasks for good."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_AFTER: Final = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks, again and again until each has ended.

    Once is not enough: `asyncio.wait_for` of Python 3.11 loses a cancellation that comes in the moment in which what it
    waits for is done (CPython issue 86296), and a loop around it would go on for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_AFTER)
