"""What an operator of the bridge can set, by environment."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Role = Literal["intake", "classify", "shadow", "record", "alert"]
ROLES: tuple[Role, ...] = ("intake", "classify", "shadow", "record", "alert")


class BridgeSettings(BaseSettings):
    """Settings of the bridge; each is read from FABWAFER_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="FABWAFER_", frozen=True)

    nats_url: str = "nats://127.0.0.1:4222"
    """The bus, with the user and password of the bridge; several servers of a cluster separated by commas."""
    inference_url: str = "http://127.0.0.1:8080"
    """The model server."""
    candidate_url: str | None = None
    """Where the candidate on trial takes V2 requests, `{version}` standing for its version. Default: nowhere."""
    database_url: str = "sqlite:///records.db"
    """The records."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """Where /metrics, /healthz and /readyz answer; 0 takes a free port."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of every stream: 1 on one machine, 3 in a cluster."""
    mqtt_max_bytes: int = Field(default=2 * 1024**3, ge=1024)
    """How much `$MQTT_msgs` holds while the bridge is away: the outage to bridge. Full, no PUBACK is given."""
    stream_max_bytes: int = Field(default=4 * 1024**3, ge=1024)
    """How much each of IMAGES, PREDICTIONS and DEAD holds."""
    portal_url: str | None = None
    """Address of the portal; an alert links to its wafer's page below it."""
    webhook_url: str | None = None
    """Where alerts are sent by HTTP POST, besides the bus."""
    webhook_secret: SecretStr | None = None
    """Signs the webhook's requests (HMAC-SHA256)."""
    image_retention_days: int | None = Field(default=None, ge=1)
    """Age at which the image of a wafer nobody reviewed is forgotten; its record stays. Default: never."""
