"""The cloud vendor's workshop, for tests: its tables as DynamoDB exports them, and images for its bucket."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode

SECONDS = 1_554_134_552
"""When the workshop's sample messages were sent."""


def typed(value: Any) -> dict[str, Any]:
    """Return a value as DynamoDB JSON has it."""
    match value:
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case None:
            return {"NULL": True}
        case list():
            return {"L": [typed(one) for one in value]}
        case _:
            return {"M": {name: typed(one) for name, one in value.items()}}


def item(imgid: str = "img1", **more: Any) -> dict[str, Any]:
    """Return an item of the table of predictions; a field that is None is left out."""
    fields = {
        "imgid": imgid,
        "timestamp": SECONDS,
        "fab": "faba",
        "camera": "camera1",
        "prediction": "Loc",
        "probability": 50.0,
        **more,
    }
    return {name: typed(value) for name, value in fields.items() if value is not None}


def ground_truth(imgid: str = "img1", label: str = "Scratch", **more: Any) -> dict[str, Any]:
    """Return an item of the table of overrides."""
    return item(imgid, prediction=None, probability=None, ground_truth=label, **more)


def write_lines(file: Path, items: Iterable[dict[str, Any] | str]) -> Path:
    """Write a file of an export to S3; a text is written as a line of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8", compresslevel=1) as out:
        for one in items:
            out.write((one if isinstance(one, str) else json.dumps({"Item": one})) + "\n")
    return file


def write_scan(file: Path, items: Iterable[dict[str, Any]]) -> Path:
    """Write the output of `aws dynamodb scan`."""
    found = list(items)
    document = {"Items": found, "Count": len(found), "ScannedCount": len(found), "ConsumedCapacity": None}
    file.write_text(json.dumps(document, indent=4))
    return file


def map_file(seed: int = 0) -> bytes:
    """Return the image file of a wafer map."""
    [(_, grid)] = sample(seed, 1)
    return encode(grid, scale=4)
