"""Thresholds: the probability from which on a defect raises an alert, by fab, camera and class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, select

from fabwafer.errors import FabwaferError
from fabwafer.records.fields import storable
from fabwafer.records.inserts import insert
from fabwafer.records.tables import thresholds

DEFAULT_THRESHOLD: Final = 0.5


class ThresholdRefusedError(FabwaferError):
    """A threshold that cannot be set. The text says what was expected."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold that was set; None means any fab, camera or class."""

    fab: str | None
    camera: str | None
    label: str | None
    value: float


def read_thresholds(connection: Connection) -> list[Threshold]:
    """Read all thresholds that were set, the most general first."""
    rows = connection.execute(select(thresholds).order_by(thresholds.c.fab, thresholds.c.camera, thresholds.c.label))
    return [Threshold(row.fab or None, row.camera or None, row.label or None, row.value) for row in rows]


def threshold_finder(connection: Connection) -> Callable[[str, str, str], float]:
    """Read the thresholds; return the function that finds the one for a fab, camera and class.

    The most specific wins: one for the camera over one for the class over one for the fab over the default, so the
    order is camera and class, camera, fab and class, class, fab, default.
    """
    values = {(one.fab, one.camera, one.label): one.value for one in read_thresholds(connection)}

    def find(fab: str, camera: str, label: str) -> float:
        orders = (
            (fab, camera, label),
            (fab, camera, None),
            (fab, None, label),
            (None, None, label),
            (fab, None, None),
            (None, None, None),
        )
        return next((values[order] for order in orders if order in values), DEFAULT_THRESHOLD)

    return find


def delete_threshold(connection: Connection, fab: str | None, camera: str | None, label: str | None) -> Threshold:
    """Delete the threshold of exactly this fab, camera and class, and return it.

    Raises:
        ThresholdRefusedError: None is set for them.
    """
    found = read_thresholds(connection)
    for one in found:
        if (one.fab, one.camera, one.label) == (fab, camera, label):
            key = {name: getattr(one, name) or "" for name in ("fab", "camera", "label")}
            connection.execute(delete(thresholds).where(*(thresholds.c[name] == value for name, value in key.items())))
            return one
    known = ", ".join(describe(one.fab, one.camera, one.label) for one in found) or "none"
    raise ThresholdRefusedError(f"no threshold is set for {describe(fab, camera, label)}; set are: {known}")


def describe(fab: str | None, camera: str | None, label: str | None) -> str:
    """Return what a threshold holds for, in words."""
    where = " ".join(f"{name} {chosen}" for name, chosen in (("fab", fab), ("camera", camera)) if chosen)
    return f"{label or 'any defect'} of {where or 'all cameras'}"


def write_threshold(connection: Connection, threshold: Threshold) -> None:
    """Set a threshold, in place of the one for the same fab, camera and class.

    Raises:
        ThresholdRefusedError: It is not within 0 to 1, or a camera is named without its fab.
    """
    if not 0 <= threshold.value <= 1:
        raise ThresholdRefusedError(f"expected a threshold of 0 to 1, got {threshold.value}")
    if threshold.camera and not threshold.fab:
        raise ThresholdRefusedError(
            f"expected the fab of camera {threshold.camera!r} as well: cameras of two fabs may share a name"
        )
    key = {name: storable(getattr(threshold, name) or "") for name in ("fab", "camera", "label")}
    statement = insert(connection, thresholds).values(**key, value=threshold.value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_={"value": statement.excluded.value})
    )
