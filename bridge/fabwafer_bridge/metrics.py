"""What the bridge counts and times, for Prometheus. Labels are bounded: an imgid is never one."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, that nobody asks for

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW: Final = (*_FAST, 30, 60, 300, 1800, 7200)
_PROBABILITY: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

PREDICTIONS = Counter(
    "fabwafer_predictions_total", "Predictions stored in the records.", ["fab", "camera", "model", "class"]
)
SHADOW_PREDICTIONS = Counter(
    "fabwafer_shadow_predictions_total", "Predictions of a candidate on trial.", ["model", "class"]
)
PROBABILITY = Histogram(
    "fabwafer_prediction_probability", "Probability of the named class.", ["model", "class"], buckets=_PROBABILITY
)
INFERENCE_SECONDS = Histogram(
    "fabwafer_inference_seconds", "One call of the model server, per batch.", ["model"], buckets=_FAST
)
END_TO_END_SECONDS = Histogram(
    "fabwafer_end_to_end_seconds", "From stored in the stream to prediction published.", ["fab"], buckets=_SLOW
)
CLOCK_SKEW_SECONDS = Gauge(
    "fabwafer_device_clock_skew_seconds", "Time of receipt less a device's own time stamp, newest image.", ["fab"]
)
MESSAGES = Counter("fabwafer_messages_total", "Messages worked on.", ["consumer", "result"])
DEAD_LETTERS = Counter("fabwafer_dead_letters_total", "Messages refused for ever.", ["reason"])
REDELIVERIES = Counter("fabwafer_redeliveries_total", "Messages that were delivered before.", ["consumer"])
CONSUMER_LAG = Gauge("fabwafer_consumer_lag", "Messages that wait for a consumer.", ["consumer"])
STREAM_FILL = Gauge("fabwafer_stream_fill_ratio", "Share of a stream's limit in use.", ["stream"])
OLDEST_UNACKNOWLEDGED = Gauge(
    "fabwafer_oldest_unacknowledged_seconds", "Age of the oldest message a consumer has not acknowledged.", ["consumer"]
)
ALERTS = Counter("fabwafer_alerts_total", "Alerts raised.", ["fab", "class"])
PENDING_ALERTS = Gauge("fabwafer_pending_alerts", "Alerts that are stored and not sent yet.")
NOT_A_WAFER = Counter("fabwafer_not_a_wafer_total", "Images that show no wafer map.", ["fab", "camera"])
MODEL_INFO = Gauge("fabwafer_model_info", "The model versions that answered.", ["version", "digest"])
