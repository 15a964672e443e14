"""The trial: which version is the candidate, and which wafers go to it as well, by what the records say."""

import asyncio
import hashlib
from typing import Final

import structlog

from fabwafer.messages.bodies import ImageMetadata
from fabwafer.records import Records, RecordsUnavailableError

LOOK_SECONDS: Final = 1.0
AWAY_SECONDS: Final = 5.0
"""Seconds until the next try while the records are away; each try is logged."""

log = structlog.get_logger()


class Trial:
    """The candidate that the records last named; while they do not answer, it stays as it was.

    Args:
        records: They hold which version is to serve.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.candidate: str | None = None
        self._share = 0.0

    async def follow(self) -> None:
        """Read the records again and again; does not return."""
        while True:
            pause = LOOK_SECONDS
            try:
                rollout = await asyncio.to_thread(self._records.rollout)
            except RecordsUnavailableError as error:
                pause = AWAY_SECONDS
                log.warning("candidate not known", reason=str(error)[:300], pause=pause)
            else:
                candidate, share = (rollout.candidate, rollout.share) if rollout else (None, 0.0)
                if candidate != self.candidate:
                    log.info("trial", candidate=candidate, share=share)
                self.candidate, self._share = candidate, share
            await asyncio.sleep(pause)

    def takes(self, image: ImageMetadata) -> bool:
        """Return whether an image goes to the candidate as well: all shots of a wafer do, or none."""
        return self.candidate is not None and place_of(image) < self._share


def place_of(image: ImageMetadata) -> float:
    """Return a number from 0 up to 1 for the wafer of an image: by the hash of its name, so evenly distributed."""
    name = f"{image.fab}/{image.camera}/{image.imgid}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
