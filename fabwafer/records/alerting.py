"""Alerts that wait to be sent, and the thresholds that decide them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select, update

from fabwafer.defects import CAUSES
from fabwafer.messages.bodies import Alert
from fabwafer.records.query import prediction_fields
from fabwafer.records.tables import alerts, predictions, thresholds, wafers

DEFAULT_THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An alert to send; `attempts` counts the times that failed so far."""

    id: str
    alert: Alert
    attempts: int


def read_thresholds(connection: Connection) -> Callable[[str, str, str], float]:
    """Reads the thresholds; the answer finds the one for a fab, camera and class.

    The most specific wins: one for the camera over one for the class over one for the fab over the default, so the
    order is camera and class, camera, fab and class, class, fab, default.
    """
    values = {(row.fab, row.camera, row.label): row.value for row in connection.execute(select(thresholds))}

    def find(fab: str, camera: str, label: str) -> float:
        orders = ((fab, camera, label), (fab, camera, ""), (fab, "", label), ("", "", label), (fab, "", ""), ("",) * 3)
        return next((values[order] for order in orders if order in values), DEFAULT_THRESHOLD)

    return find


def write_threshold(
    connection: Connection, value: float, fab: str | None, camera: str | None, label: str | None
) -> None:
    """Sets the threshold of a fab, camera or class, or of all.

    Raises:
        ValueError: It is not within 0 to 1, or a camera is named without its fab.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"expected a threshold of 0 to 1, got {value}")
    if camera and not fab:
        raise ValueError(f"expected the fab of camera {camera!r} as well: cameras of two fabs may share a name")
    key = {"fab": fab or "", "camera": camera or "", "label": label or ""}
    same = [thresholds.c[name] == part for name, part in key.items()]
    if not connection.execute(update(thresholds).where(*same).values(value=value)).rowcount:
        connection.execute(thresholds.insert().values(value=value, **key))


def read_pending(connection: Connection, limit: int) -> list[PendingAlert]:
    """Reads alerts to send: those with the fewest attempts first, so that one that always fails stops no other."""
    asked = (
        select(alerts, predictions, wafers.c.fab, wafers.c.camera, wafers.c.imgid)
        .select_from(alerts.join(predictions).join(wafers))
        .where(alerts.c.pending.is_(True))
        .order_by(alerts.c.attempts, alerts.c.received, alerts.c.id)
        .limit(limit)
    )
    waiting = []
    for row in connection.execute(asked).mappings():
        fields = {
            **(row[predictions.c.extra] or {}),
            **prediction_fields(row),
            "fab": row[wafers.c.fab],
            "camera": row[wafers.c.camera],
            "imgid": row[wafers.c.imgid],
            "id": row[alerts.c.id],
            "threshold": row[alerts.c.threshold],
            "cause": CAUSES.get(row[predictions.c.prediction]),
            "url": None,
        }
        waiting.append(PendingAlert(row[alerts.c.id], Alert.model_validate(fields), row[alerts.c.attempts]))
    return waiting


def count_pending(connection: Connection) -> int:
    """Counts the alerts that are not sent yet."""
    return connection.execute(select(func.count()).select_from(alerts).where(alerts.c.pending.is_(True))).scalar_one()


def mark_sent(connection: Connection, ids: Sequence[str]) -> None:
    """Marks alerts as sent."""
    connection.execute(update(alerts).where(alerts.c.id.in_(ids)).values(pending=False, error=None))


def mark_failed(connection: Connection, ids: Sequence[str], error: str) -> None:
    """Counts a failed attempt; the alerts stay pending."""
    connection.execute(
        update(alerts)
        .where(alerts.c.id.in_(ids), alerts.c.pending.is_(True))
        .values(attempts=alerts.c.attempts + 1, error=error.replace("\0", "\ufffd"))
    )
