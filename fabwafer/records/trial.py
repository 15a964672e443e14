"""What a candidate on trial said beside the champion, image by image."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, select

from fabwafer.records.tables import predictions, reviews


@dataclass(frozen=True, slots=True)
class Compared:
    """The classes that champion and candidate named for one image, and the last one a person named for its wafer."""

    champion: str
    candidate: str
    review: str | None


def compared(connection: Connection, version: str) -> list[Compared]:
    """Reads what a version said in shadow, beside what the champion of that time said of the same image.

    Args:
        connection: A transaction that reads.
        version: The candidate.

    Returns:
        One for each image that both answered; of several champions the one that answered last.
    """
    said = predictions.alias("said")
    counted = predictions.alias("counted")
    of_one_image = and_(said.c.wafer_id == counted.c.wafer_id, said.c.timestamp == counted.c.timestamp)
    asked = (
        select(said.c.id, said.c.wafer_id, said.c.prediction, counted.c.prediction.label("champion"))
        .join(counted, and_(of_one_image, counted.c.source == "cluster", counted.c.shadow.is_(False)))
        .where(said.c.model == version, said.c.shadow.is_(True))
        .order_by(counted.c.received, counted.c.sequence, counted.c.id)
    )
    # The later ones replace the earlier ones.
    images = {row.id: row for row in connection.execute(asked)}
    words = select(reviews.c.wafer_id, reviews.c.label).order_by(reviews.c.id)
    reviewed = {row.wafer_id: row.label for row in connection.execute(words)}
    return [Compared(row.champion, row.prediction, reviewed.get(row.wafer_id)) for row in images.values()]
