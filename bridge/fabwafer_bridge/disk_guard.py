"""The disk guard: stops the intake before the disk is full, and lets it go on once there is room."""

import asyncio
from pathlib import Path
from typing import Final

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from fabwafer.service.disk import Space, readable, space_of
from fabwafer_bridge import metrics, streams

LOOK_EVERY: Final = 0.5
"""Seconds between looks at the disk; within them a flood of images must not use up the reserve."""

log = structlog.get_logger()


class DiskGuard:
    """Watches the disk that holds the records and, on one machine, the bus's streams as well.

    A nats-server that once found no room for a message does not store anything in that stream until it is started
    again (2.15.1). So while space is short, `$MQTT_msgs` refuses messages: devices get no PUBACK, and still have them.

    Args:
        js: The bus's JetStream.
        folder: A folder on that disk.

    Attributes:
        stopped: Why nothing is taken in at present, or None.
    """

    def __init__(self, js: JetStreamContext, folder: Path) -> None:
        self._js = js
        self._folder = folder
        self._applied: bool | None = None
        self.stopped: str | None = None
        metrics.INTAKE_STOPPED.set(0)

    async def run(self) -> None:
        """Watch; does not return."""
        while True:
            try:
                await self.look(space_of(self._folder))
            except (NatsError, TimeoutError, OSError) as error:
                log.warning("disk guard", reason=repr(error)[:300])
            await asyncio.sleep(LOOK_EVERY)

    async def look(self, space: Space) -> None:
        """Stop the intake or let it go on, by the space there is.

        Raises:
            nats.errors.Error: The bus refuses; to be tried again.
            TimeoutError: The bus does not answer; to be tried again.
        """
        if self.stopped is None and space.short:
            self.stopped = (
                f"the disk of {self._folder} is full: expected {readable(space.reserve)} free, got "
                f"{readable(space.free)}; images are refused until there is room, and devices keep them"
            )
            log.warning("intake stopped", reason=self.stopped)
        elif self.stopped is not None and space.ample:
            self.stopped = None
            log.info("intake goes on", free=space.free)
        stop = self.stopped is not None
        metrics.INTAKE_STOPPED.set(stop)
        # Again and again while stopped: `fabwafer streams` sets the limit anew.
        if stop or self._applied != stop:
            await streams.refuse_messages(self._js, streams.MQTT, refuse=stop)
            self._applied = stop
