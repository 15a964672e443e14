"""The alert worker: sends the alerts that are pending in the records, and marks them."""

import asyncio
import contextlib
import time
from typing import Final, Protocol

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from fabwafer.messages.bodies import Alert
from fabwafer.messages.headers import MESSAGE_ID, SOURCE
from fabwafer.records import PendingAlert, Records
from fabwafer_bridge import metrics
from fabwafer_bridge.metrics import Result
from fabwafer_bridge.streams import ConsumerName
from fabwafer_bridge.webhook import Webhook, WebhookError

AT_ONCE: Final = 100
POLL: Final = 1.0
"""Seconds between looks at the records, for alerts that another process raised."""
LONGEST_PAUSE: Final = 60.0

log = structlog.get_logger()


class WaferPage(Protocol):
    """Where people look at a wafer."""

    def __call__(self, fab: str, camera: str, imgid: str) -> str | None:
        """Return the address of a wafer's page, None when there is no portal."""
        ...


def wafer_page(base: str | None) -> WaferPage:
    """Return the function that makes addresses of wafers' pages below a portal's address."""

    def page(fab: str, camera: str, imgid: str) -> str | None:
        return f"{base.rstrip('/')}/wafers/{fab}/{camera}/{imgid}" if base else None

    return page


class AlertWorker:
    """Sends pending alerts on the bus and, where one is set, to the webhook.

    Outside it is at least once: what is sent but not yet marked when the process dies is sent again, under the same id.

    Args:
        client: The connection to the bus.
        records: Hold the alerts.
        lock: Held by one writer of the records at a time.
        raised: Set when this process has stored new alerts.
        webhook: Where alerts go besides the bus.
        page: Makes the address that an alert links to.
    """

    def __init__(
        self,
        client: Client,
        records: Records,
        lock: asyncio.Lock,
        raised: asyncio.Event,
        webhook: Webhook | None,
        page: WaferPage,
    ) -> None:
        self._client = client
        self._records = records
        self._lock = lock
        self._webhook = webhook
        self._page = page
        self._raised = raised
        self._not_before: dict[str, float] = {}
        self._counted = float("-inf")
        metrics.start_at_zero(ConsumerName.ALERT)

    async def run(self) -> None:
        """Send alerts as they are raised; does not return."""
        while True:
            try:
                await self._send_pending()
            except Exception as error:
                log.warning("alerts wait", reason=str(error)[:300])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._raised.wait(), timeout=POLL)
            self._raised.clear()

    async def _send_pending(self) -> None:
        while True:
            await self._count()
            pending = await asyncio.to_thread(self._records.pending_alerts, AT_ONCE)
            now = time.monotonic()
            due = [one for one in pending if self._not_before.get(one.id, 0) <= now]
            if not due:
                return
            outcomes = await asyncio.gather(*(self._send(one) for one in due))
            sent = [one.id for one, error in zip(due, outcomes, strict=True) if error is None]
            metrics.MESSAGES.labels(ConsumerName.ALERT, Result.PASSED).inc(len(sent))
            metrics.MESSAGES.labels(ConsumerName.ALERT, Result.RETRIED).inc(len(due) - len(sent))
            async with self._lock:
                await asyncio.to_thread(self._records.mark_alert_sent, sent)
                for one, error in zip(due, outcomes, strict=True):
                    if error is not None:
                        await asyncio.to_thread(self._records.mark_alert_failed, [one.id], error)
            if not sent:
                return

    async def _count(self) -> None:
        if time.monotonic() - self._counted >= POLL:  # counting reads every pending row: not for each batch
            pending = await asyncio.to_thread(self._records.count_pending_alerts)
            metrics.CONSUMER_LAG.labels(ConsumerName.ALERT).set(pending)
            self._counted = time.monotonic()

    async def _send(self, pending: PendingAlert) -> str | None:
        """Send one alert; return why it was not taken, or None."""
        alert: Alert = pending.alert.model_copy(
            update={"url": self._page(pending.alert.fab, pending.alert.camera, pending.alert.imgid)}
        )
        try:
            if pending.attempts == 0:  # else only the webhook is tried again: listeners on the bus had it
                await self._client.publish(
                    alert.topic("alert").subject, alert.to_json(), headers={SOURCE: "cluster", MESSAGE_ID: alert.id}
                )
                await self._client.flush(timeout=5)
            if self._webhook is not None:
                await self._webhook.send(alert)
        except NatsError as error:
            self._not_before[pending.id] = time.monotonic() + 1
            raise ConnectionError(f"the bus is away: {error!r}") from error
        except WebhookError as error:
            pause = min(2.0 ** (pending.attempts + 1), LONGEST_PAUSE)
            self._not_before[pending.id] = time.monotonic() + pause
            log.warning("webhook failed", alert=pending.id, attempts=pending.attempts + 1, reason=str(error))
            return str(error)
        self._not_before.pop(pending.id, None)
        return None
