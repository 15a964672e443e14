"""The client with which commands ask the bus."""

import asyncio
import time
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

PATIENCE: Final = 3.0
"""Seconds; a server that reads the users of 200 connected devices anew takes a third of one."""
AGAIN_AFTER: Final = 0.05


class PatientClient(Client):
    """A client that asks again where nobody answers.

    While a server reads its users anew, as after each change of a device, it answers requests to JetStream with "no
    responders" (nats-server 2.15.1). Nobody has received such a request, so asking again does nothing twice.
    """

    async def request(self, *arguments: Any, **named: Any) -> Msg:
        """Send a request and return its answer, as `Client.request` does.

        Raises:
            NoRespondersError: Nobody has answered for seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await super().request(*arguments, **named)
            except NoRespondersError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(AGAIN_AFTER)
