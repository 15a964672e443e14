"""What the streams may hold where they share a disk with the records."""

from dataclasses import dataclass

from fabwafer_bridge.settings import StreamSettings
from fabwafer_bridge.streams import LARGEST_IMAGE, LARGEST_MESSAGE, sum_of_limits


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What the streams may hold in bytes: `$MQTT_msgs`, and each of IMAGES, PREDICTIONS and DEAD."""

    mqtt: int
    stream: int

    @property
    def total(self) -> int:
        """The sum over all streams."""
        return sum_of_limits(self.mqtt, self.stream)


def limits(settings: StreamSettings, room: int | None) -> StreamLimits:
    """Return limits whose sum is half of the room, and those of the settings at most; the records have the other half.

    Each stream can hold its largest message, however little room there is: the intake stops before the disk is full.

    Args:
        settings: A limit that the operator set is not changed.
        room: Bytes that the streams and the records may take; None where they are not to follow it.
    """
    usual = StreamLimits(settings.mqtt_max_bytes, settings.stream_max_bytes)
    if room is None:
        return usual
    share = min(1.0, room / 2 / usual.total)
    given = settings.model_fields_set
    return StreamLimits(
        usual.mqtt if "mqtt_max_bytes" in given else max(LARGEST_MESSAGE, int(usual.mqtt * share)),
        usual.stream if "stream_max_bytes" in given else max(LARGEST_IMAGE, int(usual.stream * share)),
    )
