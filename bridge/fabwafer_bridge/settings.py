"""The settings of the bridge's processes, read from the environment."""

from pydantic import Field, SecretStr

from fabwafer.service.settings import ServiceSettings, with_credentials


class BusSettings(ServiceSettings):
    """What every process on the bus needs."""

    nats_url: str = "nats://127.0.0.1:4222"
    """The bus; several servers of a cluster separated by commas."""
    nats_user: str | None = None
    """The bridge's user on the bus, where the URL has none."""
    nats_password: SecretStr | None = None
    """Its password."""

    @property
    def bus(self) -> str:
        """The URLs of the bus with the credentials."""
        return with_credentials(self.nats_url, self.nats_user, self.nats_password)


class StreamSettings(BusSettings):
    """Settings of `fabwafer streams`."""

    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of every stream: 1 on one machine, 3 in a cluster."""
    mqtt_max_bytes: int = Field(default=2 * 1024**3, ge=1024)
    """What `$MQTT_msgs` holds while the bridge is away: the outage to bridge. Full, no PUBACK is given."""
    stream_max_bytes: int = Field(default=4 * 1024**3, ge=1024)
    """What each of IMAGES, PREDICTIONS and DEAD holds."""


class BridgeSettings(BusSettings):
    """Settings of the bridge."""

    inference_url: str = "http://127.0.0.1:8080"
    """The model server."""
    candidate_url: str | None = None
    """Where the candidate on trial takes V2 requests, `{version}` standing for its version. Default: nowhere."""
    database_url: str = "sqlite:///records.db"
    """The records."""
    database_user: str | None = None
    """The user of the database, where the URL has none."""
    database_password: SecretStr | None = None
    """Its password."""
    metrics_host: str = "127.0.0.1"
    """The address on which /metrics, /healthz and /readyz answer."""
    metrics_port: int = 0
    """Their port; 0 takes a free one."""
    portal_url: str | None = None
    """The portal; an alert links to its wafer's page below it."""
    webhook_url: str | None = None
    """Where alerts are sent by HTTP POST, besides the bus."""
    webhook_secret: SecretStr | None = None
    """Signs the webhook's requests (HMAC-SHA256)."""
    image_retention_days: int | None = Field(default=None, ge=1)
    """Age at which the image of a wafer that nobody reviewed is deleted; its record stays. Default: never."""

    @property
    def database(self) -> str:
        """The URL of the records with the credentials."""
        return with_credentials(self.database_url, self.database_user, self.database_password)
