"""The records: what was received about each wafer, its predictions and reviews, in SQLite or PostgreSQL."""

from fabwafer.records.alerts import PendingAlert, StoredPredictions
from fabwafer.records.database import Records
from fabwafer.records.drawings import Drawing, statement_finder
from fabwafer.records.engine import DatabaseUrlError, RecordsUnavailableError
from fabwafer.records.predictions import PredictionRecord, ReceivedPrediction
from fabwafer.records.reviews import Review, UnknownWaferError
from fabwafer.records.rollouts import Rollout, RolloutChangedError
from fabwafer.records.schema import SchemaError, migrate
from fabwafer.records.shots import Shot, ShotRecord
from fabwafer.records.thresholds import DEFAULT_THRESHOLD, Threshold, ThresholdRefusedError
from fabwafer.records.trials import Compared
from fabwafer.records.wafers import CursorError, Filter, Page, WaferRecord, WaferRow

__all__ = [
    "DEFAULT_THRESHOLD",
    "Compared",
    "CursorError",
    "DatabaseUrlError",
    "Drawing",
    "Filter",
    "Page",
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
    "Threshold",
    "ThresholdRefusedError",
    "UnknownWaferError",
    "WaferRecord",
    "WaferRow",
    "migrate",
    "statement_finder",
]
