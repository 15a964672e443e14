"""Structured logs: one JSON object a line on stderr."""

import asyncio
import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger


class RateLimitedLog:
    """Warns of something that others bring about as often as they like, in a bounded number of lines a second.

    To be used in an event loop, which says how many lines were left out once their second is over.

    Args:
        log: Where the lines go.
        event: What each of them says.
        most: Lines in a second; one more says how many were left out.
    """

    def __init__(self, log: FilteringBoundLogger, event: str, most: int) -> None:
        self._log = log
        self._event = event
        self._most = most
        self._said = 0
        self._left_out = 0

    def say(self, **fields: object) -> None:
        """Writes the line, or counts it."""
        if self._said == 0:
            asyncio.get_running_loop().call_later(1.0, self._sum_up)
        if self._said < self._most:
            self._said += 1
            self._log.warning(self._event, **fields)
        else:
            self._left_out += 1

    def _sum_up(self) -> None:
        if self._left_out:
            self._log.warning(f"more {self._event}", lines=self._left_out)
        self._said = self._left_out = 0


def configure() -> None:
    """Sets up structlog for a process of the bridge."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
