"""The settings of the bridge's processes, read from the environment."""

from pathlib import Path

from pydantic import Field, SecretStr

from fabwafer.service.settings import BusSettings, DatabaseSettings, MetricsSettings


class StreamSettings(BusSettings):
    """Settings of `fabwafer streams`."""

    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of every stream: 1 on one machine, 3 in a cluster."""
    mqtt_max_bytes: int = Field(default=2 * 1024**3, ge=1024)
    """What `$MQTT_msgs` holds while the bridge is away: the outage to bridge. Full, no PUBACK is given."""
    stream_max_bytes: int = Field(default=4 * 1024**3, ge=1024)
    """What each of IMAGES, PREDICTIONS and DEAD holds."""


class BridgeSettings(BusSettings, DatabaseSettings, MetricsSettings):
    """Settings of the bridge."""

    inference_url: str = "http://127.0.0.1:8080"
    """The model server."""
    inference_key_file: Path | None = None
    """TorchServe's key file, where it asks for tokens. Default: none, as in a cluster."""
    candidate_url: str | None = None
    """Where the candidate on trial takes V2 requests, `{version}` standing for its version. Default: nowhere."""
    portal_url: str | None = None
    """The portal; an alert links to its wafer's page below it."""
    webhook_url: str | None = None
    """Where alerts are sent by HTTP POST, besides the bus."""
    webhook_secret: SecretStr | None = None
    """Signs the webhook's requests (HMAC-SHA256)."""
    image_retention_days: int | None = Field(default=None, ge=1)
    """Age at which the image of a wafer that nobody reviewed is deleted; its record stays. Default: never."""
    record_retention_days: int | None = Field(default=None, ge=1)
    """Age at which a wafer that nobody reviewed is deleted, with its images, predictions and alerts. Default: never."""
