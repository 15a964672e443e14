"""The wafers that people reviewed, from the records: the newest image of each, with the last word on it."""

from datetime import UTC, datetime

import numpy as np

from fabwafer.defects import NOT_A_WAFER
from fabwafer.maps.image_file import BadImageError
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.wafermap import decode
from fabwafer.records import Records, RecordsUnavailableError, SchemaError
from fabwafer_training.dataset import DataError, Dataset, UnreachableError


def read_reviewed(url: str) -> Dataset:
    """Reads the reviewed wafers of the records. They are grouped by lot, else by camera and day.

    Wafers without a stored image, or that were reviewed as no wafer map, are left out. So are images that cannot
    be read, with a sentence on each: one of them must not keep the others from being learned.

    Args:
        url: The SQLAlchemy URL of the records.

    Raises:
        UnreachableError: The database cannot be reached.
        DataError: The records are not of this version, or the URL is none.
    """
    grids, labels, groups, names, unread = [], [], [], [], []
    try:
        opened = Records(url)
    except ValueError as error:
        raise DataError(f"the records: {error}") from None
    try:
        with opened as records:
            records.check()
            for wafer in records.wafers():
                if wafer.review is None or wafer.review.label == NOT_A_WAFER:
                    continue
                name = f"{wafer.fab}/{wafer.camera}/{wafer.imgid}"
                image = records.image(wafer.fab, wafer.camera, wafer.imgid)
                if image is None:
                    continue
                try:
                    grids.append(decode(image))
                except (BadImageError, NotAWaferMapError) as error:
                    unread.append(f"left out {name}, reviewed as {wafer.review.label}: {error}")
                    continue
                labels.append(wafer.review.label)
                names.append(name)
                day = datetime.fromtimestamp(wafer.timestamp / 1000, UTC).date()
                lot = wafer.context.get("lot")
                groups.append(f"{wafer.fab}/lot/{lot}" if lot else f"{wafer.fab}/{wafer.camera}/{day}")
    except RecordsUnavailableError as error:
        raise UnreachableError(f"the records: {error}") from None
    except SchemaError as error:
        raise DataError(f"the records: {error}") from None
    return Dataset(
        "reviewed",
        grids,
        np.array(labels, dtype=np.str_),
        np.array(groups, dtype=np.str_),
        unread=tuple(unread),
        names=names,
    )
