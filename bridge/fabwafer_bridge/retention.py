"""Retention: deletes old images and old wafers from the records."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from fabwafer.records import RecordsUnavailableError

EVERY: Final = 3600.0
RETRY: Final = 60.0
"""Seconds until the next try where the database was away."""

log = structlog.get_logger()


async def forget(what: str, step: Callable[[int], int], days: int, lock: asyncio.Lock) -> None:
    """Delete what is too old, again and again; does not return.

    Args:
        what: What is deleted, for the log.
        step: Deletes some of what was received before a moment (ms), and returns how much; 0 when none is left.
        days: The age at which it is deleted.
        lock: Held by one writer of the records at a time; released between steps, so that nobody waits for long.
    """
    while True:
        before = int((time.time() - days * 86400) * 1000)
        total = 0
        try:
            while True:
                async with lock:
                    deleted = await asyncio.to_thread(step, before)
                if not deleted:
                    break
                total += deleted
        except RecordsUnavailableError as error:  # no reason to end the process
            log.warning("retention waits", what=what, reason=str(error)[:300], pause=RETRY)
            await asyncio.sleep(RETRY)
        else:
            log.info("retention", what=what, deleted=total, days=days)
            await asyncio.sleep(EVERY)
