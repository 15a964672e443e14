"""Retention: deletes old image files from the records."""

import asyncio
import time
from typing import Final

import structlog

from fabwafer.records import Records, RecordsUnavailableError

EVERY: Final = 3600.0
RETRY: Final = 60.0
"""Seconds until the next try where the database was away."""

log = structlog.get_logger()


async def forget_images(records: Records, days: int, lock: asyncio.Lock) -> None:
    """Delete the images that are too old, again and again; does not return.

    Args:
        records: They keep what somebody reviewed, and the record of each wafer.
        days: The age of an image that is deleted.
        lock: Held by one writer of the records at a time.
    """
    while True:
        before = int((time.time() - days * 86400) * 1000)
        try:
            async with lock:
                forgotten = await asyncio.to_thread(records.forget_images, before)
        except RecordsUnavailableError as error:  # no reason to end the process
            log.warning("no images deleted yet", reason=str(error)[:300], pause=RETRY)
            await asyncio.sleep(RETRY)
        else:
            log.info("retention", images=forgotten, days=days)
            await asyncio.sleep(EVERY)
