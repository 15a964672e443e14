"""What the streams may hold follows the space there is."""

import pytest

from fabwafer_bridge.settings import StreamSettings
from fabwafer_bridge.streams import LARGEST_IMAGE, LARGEST_MESSAGE
from fabwafer_local.room import stream_limits

GIB = 1024**3


def test_the_limits_are_the_defaults_where_there_is_room_and_half_of_the_room_where_there_is_less() -> None:
    defaults = StreamSettings()
    assert stream_limits(100 * GIB, defaults).mqtt == defaults.mqtt_max_bytes
    assert stream_limits(100 * GIB, defaults).stream == defaults.stream_max_bytes
    for room in (20 * GIB, 2 * GIB, GIB // 4):
        assert 0.45 * room < stream_limits(room, defaults).total <= 0.5 * room


def test_a_stream_holds_its_largest_message_however_little_room_there_is() -> None:
    limits = stream_limits(0, StreamSettings())
    assert (limits.mqtt, limits.stream) == (LARGEST_MESSAGE, LARGEST_IMAGE)


def test_a_limit_that_was_set_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_MQTT_MAX_BYTES", "12345")
    limits = stream_limits(2 * GIB, StreamSettings.read())
    assert limits.mqtt == 12345
    assert limits.stream < StreamSettings().stream_max_bytes
