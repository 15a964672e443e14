"""The headers of messages on the bus, and the receipt that two of them make."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

MESSAGE_ID: Final = "Nats-Msg-Id"
"""A stream stores a message of the same id once within its window of duplicates."""
MQTT_PUBLISH: Final = "Nmqtt-Pub"
"""NATS's own: `1` on what came by MQTT with QoS 1, which `$MQTT_msgs` holds."""
SIZE: Final = "Nats-Msg-Size"
"""NATS's own: the size of a message that a consumer gets without its payload."""

PREFIX: Final = "Fabwafer-"
RECEIVED: Final = "Fabwafer-Received"
SEQUENCE: Final = "Fabwafer-Sequence"
SOURCE: Final = "Fabwafer-Source"
"""`cluster` on what the bridge publishes for listeners; a body that says so proves nothing."""
PIXELS: Final = "Fabwafer-Pixels"
"""The number of pixels of an image, so that calls of the model server can be bounded without decoding it."""
MESSAGE: Final = "Fabwafer-Message"
"""An image's message without its bytes, JSON in ASCII: the payload is the image file."""
MESSAGE_BYTES: Final = 32 * 1024
"""What `MESSAGE` may have at most; JetStream takes 64 KB of headers, and a dead letter has more of them."""

REASON: Final = "Fabwafer-Reason"
CODE: Final = "Fabwafer-Code"
SUBJECT: Final = "Fabwafer-Subject"
ORIGIN: Final = "Fabwafer-Origin"


@dataclass(frozen=True, slots=True)
class Receipt:
    """When and as which message the intake received something; together they are the order of receipt.

    Attributes:
        received: Milliseconds by the clock of the intake's stream.
        sequence: The sequence in that stream; orders what was received in the same millisecond.
    """

    received: int
    sequence: int

    @classmethod
    def from_headers(cls, headers: Mapping[str, str] | None, otherwise: int) -> Self:
        """Read the receipt of a message.

        Args:
            headers: The message's headers.
            otherwise: The time where they have none, in milliseconds.

        Raises:
            ValueError: A header is not a number.
        """
        found = headers or {}
        return cls(int(found.get(RECEIVED, otherwise)), int(found.get(SEQUENCE, 0)))

    @property
    def headers(self) -> dict[str, str]:
        """The headers that carry it."""
        return {RECEIVED: str(self.received), SEQUENCE: str(self.sequence)}
