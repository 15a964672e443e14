"""The bridge as one process: its roles side by side, started together and drained together."""

import asyncio
import contextlib
import time
from collections.abc import Collection
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from fabwafer.service.health import HealthServer
from fabwafer.service.process import end, first_of
from fabwafer_bridge import lag, metrics
from fabwafer_bridge.connection import connect, until_closed
from fabwafer_bridge.devices import CHANGES, revoked
from fabwafer_bridge.roles import ROLES
from fabwafer_bridge.runtime import Runtime
from fabwafer_bridge.settings import BridgeSettings
from fabwafer_bridge.streams import wait_for_streams

DRAIN_SECONDS: Final = 6.0
"""How long what is being worked on may take to finish after SIGTERM; the rest is delivered to the next process."""

log = structlog.get_logger()


class Bridge:
    """The bridge's roles on one connection.

    Args:
        settings: What the operator set.
        roles: Which of ROLES run in this process.
    """

    def __init__(self, settings: BridgeSettings, roles: Collection[str]) -> None:
        self._settings = settings
        self._roles = roles
        self._unready: str | None = "starting"
        self._client: Client | None = None
        self._runtime: Runtime | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Carry messages until `stopping` is set, then finish what is under way.

        Raises:
            Exception: Work failed that is no consumer's; the process should end and be started anew.
        """
        async with contextlib.AsyncExitStack() as stack:
            # It waits for the bus, the streams and the database, each of which may be away when the process has to end.
            starting = asyncio.create_task(self._start(stack))
            try:
                await first_of(stopping, starting)
                if self._runtime is not None and not stopping.is_set():
                    await first_of(stopping, *self._runtime.tasks)
            except BaseException:
                await end([starting, *(self._runtime.tasks if self._runtime else ())])
                raise
            self._unready = "stopping"
            await end([starting])
            if self._runtime is not None:
                await _drain(self._runtime)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the roles, each as soon as what it needs is there."""
        settings = self._settings
        health = HealthServer(self._why_unready)
        stack.push_async_callback(health.stop)
        log.info("metrics", address=await health.start(settings.metrics_host, settings.metrics_port))
        self._client = client = await connect(settings.bus_url, name="fabwafer-bridge", reconnected=self._renew)
        stack.push_async_callback(_close, client)
        self._runtime = runtime = Runtime(settings, client, stack)
        await wait_for_streams(runtime.js)
        # The last of a wafer's way first, so that nothing arrives before those who wait for it.
        for role in reversed(ROLES):
            if role in self._roles:
                await ROLES[role](runtime)
        await client.subscribe(CHANGES, cb=self._forget_revoked)
        runtime.start(lag.follow(runtime.js))
        runtime.start(until_closed(client))
        self._unready = None
        log.info("ready", roles=list(self._roles))

    def _why_unready(self) -> str | None:
        if self._unready is None and self._client is not None and not self._client.is_connected:
            return "the bus is away"
        if self._unready is not None or self._runtime is None:
            return self._unready
        reasons = [consumer.unready for consumer in self._runtime.consumers]
        if self._runtime.guard is not None:
            reasons.append(self._runtime.guard.stopped)
        if self._runtime.champion is not None:
            reasons.append(self._runtime.champion.unready)
        return "; ".join(reason for reason in reasons if reason) or None

    async def _forget_revoked(self, change: Msg) -> None:
        if device := revoked(change):
            metrics.forget_camera(*device)
            if self._runtime is not None:
                self._runtime.ended_tests.add(*device)

    async def _renew(self) -> None:
        for puller in self._runtime.pullers if self._runtime else ():
            await puller.renew()


async def _drain(runtime: Runtime) -> None:
    """Let batches under way finish: with nothing more pulled, a consumer that is done waits for ever."""
    await asyncio.gather(*(puller.stop() for puller in runtime.pullers))
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline and any(puller.busy for puller in runtime.pullers):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await end(runtime.tasks)
    log.info("drained")


async def _close(client: Client) -> None:
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await client.flush(timeout=2)
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await client.close()
