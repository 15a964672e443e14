"""What is stated about the colours of drawings: by the image's message, else for its camera, else for its fab."""

import asyncio
from typing import Final

import structlog

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages.bodies import ImageMetadata
from fabwafer.records import Records, RecordsUnavailableError

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
        self._settings: dict[tuple[str, str | None], StatedColours] = {}

    async def look(self) -> None:
        """Read the records once.

        Raises:
            RecordsUnavailableError: They do not answer now.
        """
        settings = await asyncio.to_thread(self._records.drawings)
        self._settings = {(one.fab, one.camera): one.colours for one in settings}

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
        if image.colours is not None:
            return image.colours
        return self._settings.get((image.fab, image.camera)) or self._settings.get((image.fab, None))
