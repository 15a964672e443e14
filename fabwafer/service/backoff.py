"""Pauses between tries of something that may succeed later."""

import asyncio
import random
from typing import Final

FIRST: Final = 0.1
LONGEST: Final = 2.0


class Backoff:
    """Pauses that double from the first to the longest.

    Args:
        first: Seconds of the first pause.
        longest: Seconds of the longest pause.
        jitter: Whether each pause is cut by a random part of up to a half, so that several processes that wait for the
            same do not try in step.
    """

    def __init__(self, first: float = FIRST, longest: float = LONGEST, *, jitter: bool = False) -> None:
        self._first, self._longest, self._jitter = first, longest, jitter
        self._next = first

    @property
    def pause(self) -> float:
        """Seconds of the next pause, jitter left aside."""
        return self._next

    async def wait(self) -> None:
        """Sleep for the next pause; the one after it is twice as long."""
        pause = self._next
        self._next = min(2 * self._next, self._longest)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0) if self._jitter else pause)  # noqa: S311

    def reset(self) -> None:
        """Start again with the first pause, after a success."""
        self._next = self._first
