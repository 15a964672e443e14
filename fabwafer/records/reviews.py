"""Reviews: what people found that a wafer shows. They are only added, never changed."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from fabwafer.errors import FabwaferError
from fabwafer.records.keys import WaferKey, is_wafer
from fabwafer.records.tables import reviews, wafers


class UnknownWaferError(FabwaferError):
    """Nothing was received about the wafer that was named."""


@dataclass(frozen=True, slots=True)
class Review:
    """The class that a person found on a wafer; `time` in ms."""

    label: str
    reviewer: str
    time: int
    note: str | None


def add_review(connection: Connection, wafer: WaferKey, review: Review) -> None:
    """Add a review to a wafer; the wafer needs none any more.

    Raises:
        UnknownWaferError: Nothing was received about that wafer.
    """
    # First, so that it waits for whoever stores a prediction of this wafer, and decides whether it needs a review.
    reviewed = update(wafers).where(is_wafer(wafer)).values(reviewed=True, needs_review=False).returning(wafers.c.id)
    wafer_id = connection.scalar(reviewed)
    if wafer_id is None:
        fab, camera, imgid = wafer
        raise UnknownWaferError(f"no wafer {imgid!r} of camera {camera!r} in fab {fab!r} was received")
    row = {"label": review.label, "reviewer": review.reviewer, "time": review.time, "note": review.note}
    connection.execute(reviews.insert().values(wafer_id=wafer_id, **row))


def read_reviews(connection: Connection, ids: Sequence[int]) -> dict[int, list[Review]]:
    """Read the reviews of wafers, by the wafer's id, the last one last."""
    found: dict[int, list[Review]] = defaultdict(list)
    for row in connection.execute(select(reviews).where(reviews.c.wafer_id.in_(ids)).order_by(reviews.c.id)):
        found[row.wafer_id].append(Review(row.label, row.reviewer, row.time, row.note))
    return found
