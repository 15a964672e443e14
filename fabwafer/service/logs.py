"""Structured logs: one JSON object a line on stderr."""

import asyncio
import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger


class RateLimitedLog:
    """Warns of something that others can cause as often as they like, in a bounded number of lines a second.

    It needs a running event loop, to log how many lines were left out at the end of a second.

    Args:
        log: The logger.
        event: The event of each line.
        most: Lines a second; one more holds the number of those left out.
    """

    def __init__(self, log: FilteringBoundLogger, event: str, most: int) -> None:
        self._log = log
        self._event = event
        self._most = most
        self._logged = 0
        self._left_out = 0

    def say(self, **fields: object) -> None:
        """Log a line, or count it as left out."""
        if self._logged == 0:
            asyncio.get_running_loop().call_later(1.0, self._sum_up)
        if self._logged < self._most:
            self._logged += 1
            self._log.warning(self._event, **fields)
        else:
            self._left_out += 1

    def _sum_up(self) -> None:
        if self._left_out:
            self._log.warning(f"more {self._event}", lines=self._left_out)
        self._logged = self._left_out = 0


class _Lossy:
    """Standard error without its failures: a full disk or a closed pipe must not end what only wants to log."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure() -> None:
    """Set up structlog for a long-running process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _Lossy())),
        cache_logger_on_first_use=True,
    )
