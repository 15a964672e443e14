"""ARCHITECTURE.md names files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_path_in_the_architecture_is_there() -> None:
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []
