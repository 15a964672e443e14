"""What the streams may hold follows the space there is."""

import pytest

from fabwafer_bridge.settings import StreamSettings
from fabwafer_bridge.stream_limits import limits
from fabwafer_bridge.streams import LARGEST_IMAGE, LARGEST_MESSAGE

GIB = 1024**3


def test_the_limits_are_the_defaults_where_there_is_room_and_half_of_the_room_where_there_is_less() -> None:
    defaults = StreamSettings()
    assert limits(defaults, 100 * GIB).mqtt == defaults.mqtt_max_bytes
    assert limits(defaults, 100 * GIB).stream == defaults.stream_max_bytes
    for room in (20 * GIB, 2 * GIB, GIB // 4):
        assert 0.45 * room < limits(defaults, room).total <= 0.5 * room


def test_a_stream_holds_its_largest_message_however_little_room_there_is() -> None:
    fitting = limits(StreamSettings(), 0)
    assert (fitting.mqtt, fitting.stream) == (LARGEST_MESSAGE, LARGEST_IMAGE)


def test_a_limit_that_was_set_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_MQTT_MAX_BYTES", "12345")
    fitting = limits(StreamSettings.read(), 2 * GIB)
    assert fitting.mqtt == 12345
    assert fitting.stream < StreamSettings().stream_max_bytes
