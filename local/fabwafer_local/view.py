"""The view of a running local system: the wafers received, and their predictions."""

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fabwafer.commands.text import one_line, printable
from fabwafer.defects import NOT_A_WAFER
from fabwafer.messages.bodies import read_device_prediction, read_stored_alert, read_stored_prediction
from fabwafer.messages.headers import SOURCE
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import ALERT_TOPICS, IMAGE_TOPICS, PREDICTION_TOPICS, Topic

ROWS: Final = 12
WAITING_LIMIT: Final = 10_000
"""Images waiting for their prediction; above it the oldest lose their latency in the table."""


@dataclass(slots=True)
class Row:
    """One prediction as it is shown.

    `latency` is in milliseconds, from the image to the prediction on the bus; `review` why a person should look.
    """

    at: str
    sender: str
    imgid: str
    prediction: str
    defect: bool
    probability: float
    source: str
    latency: float | None
    review: str = ""
    alert: bool = False


class View:
    """Listens on the bus, and shows the newest predictions.

    Args:
        console: On a terminal a table is drawn; anything else gets a line for each prediction.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawing = False
        self._rows: deque[Row] = deque(maxlen=ROWS)
        self._seen: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._client: Client | None = None
        self._images = self._predictions = self._alerts = 0
        self._notes: deque[str] = deque(maxlen=4)

    async def listen(self, nats_url: str) -> None:
        """Begin to listen on the bus."""
        self._client = await nats.connect(
            nats_url, name="fabwafer-up", max_reconnect_attempts=-1, reconnect_time_wait=0.5, error_cb=_quiet
        )
        await self._client.subscribe(IMAGE_TOPICS, cb=self._image)
        await self._client.subscribe(PREDICTION_TOPICS, cb=self._prediction)
        await self._client.subscribe(ALERT_TOPICS, cb=self._alert)

    async def stop(self) -> None:
        """Stop listening."""
        if self._client is not None:
            await self._client.close()

    async def _image(self, message: Msg) -> None:
        try:
            topic = Topic.from_subject(message.subject)
        except MessageRefusedError:
            return  # the intake refuses it with a reason
        self._images += 1
        # Names from the topic: parsing the body would cost more than all else here, and the two usually agree.
        self._seen[topic.fab, topic.camera, topic.imgid] = time.perf_counter()
        if len(self._seen) > WAITING_LIMIT:
            self._seen.popitem(last=False)

    async def _prediction(self, message: Msg) -> None:
        # The source is in a header that only the bridge can set; a device's body may claim anything.
        cluster = (message.headers or {}).get(SOURCE) == "cluster"
        try:
            prediction = (
                read_stored_prediction(message.data)
                if cluster
                else read_device_prediction(Topic.from_subject(message.subject), message.data)
            )
        except MessageRefusedError:
            return
        self._predictions += 1
        seen = self._seen.pop((prediction.fab, prediction.camera, prediction.imgid), None) if cluster else None
        row = Row(
            at=time.strftime("%H:%M:%S"),
            sender=f"{prediction.fab}/{prediction.camera}",
            imgid=prediction.imgid,
            prediction=one_line(prediction.prediction),
            defect=prediction.names_defect,
            probability=prediction.probability,
            source="cluster" if cluster else "device",
            latency=(time.perf_counter() - seen) * 1000 if seen is not None else None,
            review=printable(prediction.review_reason or ""),
        )
        self._rows.append(row)
        if not self._drawing:
            took = f" {row.latency:.0f} ms" if row.latency is not None else ""
            self._print(
                f"{row.at} {row.sender} {row.imgid}: {row.prediction} {row.probability:.0%} ({row.source}){took}"
                f"{f', review: {row.review}' if row.review else ''}"
            )

    async def _alert(self, message: Msg) -> None:
        try:
            alert = read_stored_alert(message.data)
        except MessageRefusedError:
            return
        self._alerts += 1
        for row in self._rows:
            if (row.sender, row.imgid, row.source) == (f"{alert.fab}/{alert.camera}", alert.imgid, alert.source):
                row.alert = True

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a closed pipe or a full disk must not end the system
            self._console.print(printable(line), soft_wrap=True, highlight=False, markup=False)

    async def draw(self) -> None:
        """Draw the table on a terminal until cancelled."""
        if not self._console.is_terminal:
            return
        self._drawing = True
        try:
            with Live(self, console=self._console, refresh_per_second=8, vertical_overflow="crop"):
                await asyncio.Event().wait()
        finally:
            self._drawing = False

    def say(self, line: str) -> None:
        """Show what happened to the system itself."""
        if self._drawing:
            self._notes.append(f"{time.strftime('%H:%M:%S')} {line}")
        else:
            self._print(line)

    def __rich__(self) -> RenderableType:
        """Return the table as it is now."""
        table = Table(expand=False, title_justify="left")
        table.title = f"{self._images} images, {self._predictions} predictions, {self._alerts} alerts"
        for name, side in (
            ("time", "left"),
            ("fab/camera", "left"),
            ("image", "left"),
            ("prediction", "left"),
            ("prob.", "right"),
            ("ms", "right"),
            ("by", "left"),
            ("", "left"),
        ):
            table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
        for row in self._rows:
            table.add_row(
                row.at,
                row.sender,
                row.imgid,
                Text(row.prediction, style=_style(row)),
                f"{row.probability:.0%}",
                f"{row.latency:.0f}" if row.latency is not None else "",
                row.source,
                Text("ALERT", style="bold red") if row.alert else Text(row.review and f"review: {row.review}"),
            )
        return Group(table, *(Text(printable(note), style="yellow") for note in self._notes))


def _style(row: Row) -> str:
    if row.prediction == NOT_A_WAFER:
        return "dim"
    return "yellow" if row.defect else "green"


async def _quiet(_: Exception) -> None:
    """Ignore errors of the connection: the supervisor reports a bus that is away."""
