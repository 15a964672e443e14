"""The values that the chart is rendered with in tests, one file for each kind of installation."""

from pathlib import Path
from typing import Any, Final

import yaml

FILES: Final = sorted((Path(__file__).parent / "values").glob("*.yaml"))
NAMES: Final = [file.stem for file in FILES]
BUNDLED: Final[dict[str, Any]] = {"credentials": {"existingSecret": "passwords"}}
"""The least that helm needs where it cannot ask a cluster."""


def values(name: str) -> dict[str, Any]:
    """Return the values of one of the files."""
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "values" / f"{name}.yaml").read_text())
    return found


def merged(*all_values: dict[str, Any]) -> dict[str, Any]:
    """Return values over others, as helm merges them: maps are merged, everything else is replaced."""
    result: dict[str, Any] = {}
    for one in all_values:
        for key, value in one.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def nested(path: str, value: Any) -> dict[str, Any]:
    """Return values that set one: `nested("nats.replicas", 3)` is `{"nats": {"replicas": 3}}`."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)
