"""The trial: which version is the candidate, and which wafers go to it as well, as the records say."""

import asyncio
import hashlib
from typing import Final

import structlog

from fabwafer.messages.bodies import Image
from fabwafer.records import Records, RecordsUnavailableError

LOOK_SECONDS: Final = 1.0
AWAY_SECONDS: Final = 5.0
"""Until the next look while the records are away, which is told of each time."""

log = structlog.get_logger()


class Trial:
    """What the records last said of a candidate; while they do not answer, it stays as it was.

    Args:
        records: They hold who is to serve.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.candidate: str | None = None
        self._share = 0.0

    async def follow(self) -> None:
        """Looks again and again; does not return."""
        while True:
            pause = LOOK_SECONDS
            try:
                said = await asyncio.to_thread(self._records.rollout)
            except RecordsUnavailableError as error:
                pause = AWAY_SECONDS
                log.warning("who is on trial is not known", reason=str(error)[:300], pause=pause)
            else:
                candidate = said.candidate if said else None
                if candidate != self.candidate:
                    log.info("trial", candidate=candidate, share=said.share if said else 0.0)
                self.candidate, self._share = candidate, said.share if said else 0.0
            await asyncio.sleep(pause)

    def takes(self, image: Image) -> bool:
        """Tells whether an image goes to the candidate as well: all shots of a wafer do, or none."""
        return self.candidate is not None and place_of(image) < self._share


def place_of(image: Image) -> float:
    """Returns where the wafer of an image stands among all, from 0 up to 1: by the hash of its name, so evenly."""
    name = f"{image.fab}/{image.camera}/{image.imgid}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
