"""Whether the champion answers: it is asked about a probe image again and again."""

import asyncio
from typing import Final, Protocol

import structlog

from fabwafer_bridge.inference import PROBE, Answer

ASK_EVERY: Final = 2.0
ASK_AGAIN: Final = 0.5
"""Seconds between two questions while the champion answers, and while it does not."""
SILENT: Final = "the model does not answer"

log = structlog.get_logger()


class Server(Protocol):
    """The champion's server, as far as it is needed here."""

    async def classify(self, images: list[bytes], /) -> list[Answer]:
        """Return an answer for each image file."""
        ...


class ChampionProbe:
    """Asks the champion about a probe image in the background, so that a readiness check costs the model nothing.

    Args:
        server: The champion's.

    Attributes:
        unready: Why the champion did not answer the last question, or None.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.unready: str | None = f"{SILENT}: it was not asked yet"

    async def run(self) -> None:
        """Ask again and again; does not return."""
        while True:
            before = self.unready
            try:
                await self._server.classify([PROBE])
            except Exception as error:  # whatever it is, a question must not end the process
                self.unready = f"{SILENT}: {error!s:.300}"
            else:
                self.unready = None
            if self.unready != before:
                log.info("model", unready=self.unready)
            await asyncio.sleep(ASK_AGAIN if self.unready else ASK_EVERY)
