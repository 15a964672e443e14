"""Alerts: decided when a prediction is stored, and pending until they are sent."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select, update

from fabwafer.defects import CAUSES
from fabwafer.messages.bodies import Alert, Prediction, stored_alert
from fabwafer.messages.inference import WITHOUT_ALERT
from fabwafer.messages.topics import SMOKE_TEST_FAB
from fabwafer.records.fields import storable
from fabwafer.records.predictions import ReceivedPrediction, message_fields
from fabwafer.records.tables import alerts, predictions, wafers

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "fabwafer:alert")


@dataclass(frozen=True, slots=True)
class StoredPredictions:
    """The predictions that were new, and the fab and class of each alert that was raised."""

    new: list[ReceivedPrediction]
    alerts: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An alert to send; `attempts` counts the times that failed so far."""

    id: str
    alert: Alert
    attempts: int


def raise_alerts(
    connection: Connection, serving: Mapping[int, ReceivedPrediction], threshold: Callable[[str, str, str], float]
) -> list[tuple[str, str]]:
    """Raise the alerts of predictions, in the transaction that stored them.

    Args:
        connection: The transaction.
        serving: By the row's id, predictions that were not considered before; none of a candidate.
        threshold: The probability from which a class alerts, by fab, camera and class.

    Returns:
        The fab and class of each alert.
    """
    rows, raised = [], []
    for prediction_id, one in serving.items():
        message = one.prediction
        if not message.names_defect or message.review_reason in WITHOUT_ALERT or message.fab == SMOKE_TEST_FAB:
            continue
        limit = threshold(message.fab, message.camera, message.prediction)
        if message.probability < limit:
            continue
        rows.append(
            {
                "id": alert_id(message),
                "prediction_id": prediction_id,
                "threshold": limit,
                "received": one.received,
                "pending": True,
                "attempts": 0,
            }
        )
        raised.append((message.fab, message.prediction))
    if rows:
        connection.execute(alerts.insert(), rows)
        alerting = select(predictions.c.wafer_id).where(predictions.c.id.in_([row["prediction_id"] for row in rows]))
        connection.execute(update(wafers).where(wafers.c.id.in_(alerting), ~wafers.c.alert).values(alert=True))
    return raised


def alert_id(prediction: Prediction) -> str:
    """Return the id of the alert that a prediction raises: the same each time, so that receivers know repetitions."""
    message = prediction
    key = (message.fab, message.camera, message.imgid, message.source, message.model, str(message.timestamp))
    return str(uuid.uuid5(_NAMESPACE, "/".join(key)))


def read_pending(connection: Connection, limit: int) -> list[PendingAlert]:
    """Read alerts to send: those with the fewest attempts first, so that one that always fails stops no other."""
    statement = (
        select(alerts, predictions, wafers.c.fab, wafers.c.camera, wafers.c.imgid)
        .select_from(alerts.join(predictions).join(wafers))
        .where(alerts.c.pending.is_(True))
        .order_by(alerts.c.attempts, alerts.c.received, alerts.c.id)
        .limit(limit)
    )
    pending = []
    for row in connection.execute(statement).mappings():
        fields = {
            **(row[predictions.c.extra] or {}),
            **message_fields(row),
            "fab": row[wafers.c.fab],
            "camera": row[wafers.c.camera],
            "imgid": row[wafers.c.imgid],
            "is_defect": True,
            "id": row[alerts.c.id],
            "threshold": row[alerts.c.threshold],
            "cause": CAUSES.get(row[predictions.c.prediction]),
            "url": None,
        }
        pending.append(PendingAlert(row[alerts.c.id], stored_alert(fields), row[alerts.c.attempts]))
    return pending


def count_pending(connection: Connection) -> int:
    """Count the alerts that are not sent yet."""
    return connection.execute(select(func.count()).select_from(alerts).where(alerts.c.pending.is_(True))).scalar_one()


def mark_sent(connection: Connection, ids: Sequence[str]) -> None:
    """Mark alerts as sent."""
    connection.execute(update(alerts).where(alerts.c.id.in_(ids)).values(pending=False, error=None))


def mark_failed(connection: Connection, ids: Sequence[str], error: str) -> None:
    """Count a failed attempt; the alerts stay pending."""
    connection.execute(
        update(alerts)
        .where(alerts.c.id.in_(ids), alerts.c.pending.is_(True))
        .values(attempts=alerts.c.attempts + 1, error=storable(error))
    )
