"""Trials: the predictions of a candidate beside the champion's, image by image."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, select

from fabwafer.records.tables import predictions, reviews


@dataclass(frozen=True, slots=True)
class Compared:
    """The classes that champion and candidate predicted for one image, and the last review's for its wafer."""

    champion: str
    candidate: str
    review: str | None


def read_compared(connection: Connection, version: str) -> list[Compared]:
    """Read what a version predicted in shadow, beside the prediction of the champion of that time for the same image.

    Args:
        connection: A transaction that reads.
        version: The candidate.

    Returns:
        One for each image that both answered; of several champions the one that answered last.
    """
    shadow = predictions.alias("shadow_answers")
    serving = predictions.alias("serving_answers")
    same_image = and_(shadow.c.wafer_id == serving.c.wafer_id, shadow.c.timestamp == serving.c.timestamp)
    statement = (
        select(shadow.c.id, shadow.c.wafer_id, shadow.c.prediction, serving.c.prediction.label("champion"))
        .join(serving, and_(same_image, serving.c.source == "cluster", serving.c.shadow.is_(False)))
        .where(shadow.c.model == version, shadow.c.shadow.is_(True))
        .order_by(serving.c.received, serving.c.sequence, serving.c.id)
    )
    # Later rows replace earlier ones.
    images = {row.id: row for row in connection.execute(statement)}
    labels = select(reviews.c.wafer_id, reviews.c.label).order_by(reviews.c.id)
    reviewed = {row.wafer_id: row.label for row in connection.execute(labels)}
    return [Compared(row.champion, row.prediction, reviewed.get(row.wafer_id)) for row in images.values()]
