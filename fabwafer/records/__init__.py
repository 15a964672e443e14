"""The records: what was received about each wafer, and what was said of it, in SQLite or PostgreSQL."""

from fabwafer.records.alerting import DEFAULT_THRESHOLD, PendingAlert
from fabwafer.records.database import Records, RolloutChangedError, UnknownWaferError
from fabwafer.records.engine import RecordsUnavailableError
from fabwafer.records.query import PredictionRecord, Review, Rollout, ShotRecord, WaferRecord
from fabwafer.records.schema import SchemaError, migrate
from fabwafer.records.store import ReceivedPrediction, Shot, StoredPredictions
from fabwafer.records.trial import Compared

__all__ = [
    "DEFAULT_THRESHOLD",
    "Compared",
    "PendingAlert",
    "PredictionRecord",
    "ReceivedPrediction",
    "Records",
    "RecordsUnavailableError",
    "Review",
    "Rollout",
    "RolloutChangedError",
    "SchemaError",
    "Shot",
    "ShotRecord",
    "StoredPredictions",
    "UnknownWaferError",
    "WaferRecord",
    "migrate",
]
