"""The fields that shots and predictions have in common, as columns and back."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import RowMapping, Table

from fabwafer.maps.counts import MapCounts
from fabwafer.messages.bodies import CONTEXT_FIELDS, ImageMetadata, Prediction
from fabwafer.records.tables import predictions

MAP_FIELDS: Final = tuple(MapCounts.model_fields)


def storable(text: str) -> str:
    """Return a text as both databases can hold it: PostgreSQL refuses NUL, so it becomes U+FFFD."""
    return text.replace("\0", "\ufffd")


def context_and_extra(message: ImageMetadata | Prediction) -> dict[str, Any]:
    """Return the columns for a message's context fields and for its other fields, those that fabwafer does not know."""
    extra = message.model_extra or {}
    if isinstance(message, ImageMetadata) and message.colours is not None:
        extra = {**extra, "colours": message.colours.model_dump(exclude_defaults=True)}
    context = {name: getattr(message, name) for name in CONTEXT_FIELDS}
    return {
        **{name: value if value is None else storable(value) for name, value in context.items()},
        "extra": extra or None,
    }


def context_of(row: RowMapping, table: Table) -> dict[str, str]:
    """Return the context fields that a row of shots or predictions has."""
    found = {name: row[table.c[name]] for name in CONTEXT_FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def merged_context(
    of_predictions: Iterable[Mapping[str, str]], of_shots: Iterable[Mapping[str, str]]
) -> dict[str, str]:
    """Return a wafer's context: each field from the newest shot that has it, else from the newest prediction.

    Args:
        of_predictions: The context of each prediction, the newest last.
        of_shots: The context of each shot, the newest last.
    """
    merged = {name: value for part in (*of_predictions, *of_shots) for name, value in part.items()}
    return {name: merged[name] for name in CONTEXT_FIELDS if name in merged}


def map_of(row: RowMapping) -> MapCounts | None:
    """Return what the model server counted on the map, from a row of predictions; None where it counted nothing."""
    if row[predictions.c.rows] is None:
        return None
    return MapCounts(**{name: row[predictions.c[name]] for name in MAP_FIELDS})
