"""What is stated about the colours of drawings: by the image's message, else for its camera, else for its fab."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages.bodies import ImageMetadata
from fabwafer.records import Records, RecordsUnavailableError, statement_finder

LOOK_SECONDS: Final = 1.0
AWAY_SECONDS: Final = 5.0
"""Seconds until the next try while the records are away; each try is logged."""

log = structlog.get_logger()


class Drawings:
    """The settings that the records last named; while they do not answer, they stay as they were.

    Args:
        records: They hold the settings.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._find: Callable[[str, str], StatedColours | None] = statement_finder(())

    async def look(self) -> None:
        """Read the records once.

        Raises:
            RecordsUnavailableError: They do not answer now.
        """
        self._find = statement_finder(await asyncio.to_thread(self._records.drawings))

    async def follow(self) -> None:
        """Read the records again and again; does not return."""
        while True:
            pause = LOOK_SECONDS
            try:
                await self.look()
            except RecordsUnavailableError as error:
                pause = AWAY_SECONDS
                log.warning("colours of drawings not known", reason=str(error)[:300], pause=pause)
            await asyncio.sleep(pause)

    def stated(self, image: ImageMetadata) -> StatedColours | None:
        """Return what is stated about the colours of an image, None where nothing is."""
        return image.colours or self._find(image.fab, image.camera)
