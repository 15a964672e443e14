"""The wafers that people reviewed, from the records: the newest image of each, with the class of its last review."""

from datetime import UTC, datetime

import numpy as np

from fabwafer.defects import NOT_A_WAFER
from fabwafer.maps.image_file import BadImageError
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.maps.wafermap import read
from fabwafer.records import (
    DatabaseUrlError,
    Filter,
    Records,
    RecordsUnavailableError,
    SchemaError,
    WaferRow,
    statement_finder,
)
from fabwafer_training.dataset import DataError, Dataset, UnreachableError


def read_reviewed(url: str) -> Dataset:
    """Read the reviewed wafers of the records. They are grouped by lot, else by camera and day.

    Wafers without a stored image, or whose last review names no wafer map, are left out. So are images that cannot
    be read, or whose colours leave a doubt about passed and failed, with a sentence on each: one of them must not keep
    the others from being learned.

    Args:
        url: The SQLAlchemy URL of the records.

    Raises:
        UnreachableError: The database cannot be reached.
        DataError: The records are not of this version, or the URL is none.
    """
    grids, labels, groups, names, unread = [], [], [], [], []
    try:
        with Records(url) as records:
            records.check()
            set_for = statement_finder(records.drawings())
            for row in records.rows(Filter(reviewed=True)):
                if row.reviewed is None or row.reviewed == NOT_A_WAFER:
                    continue
                image = records.image(row.fab, row.camera, row.imgid)
                if image is None:
                    continue
                name = f"{row.fab}/{row.camera}/{row.imgid}"
                try:
                    found = read(image, _sent_with(records, row) or set_for(row.fab, row.camera))
                except (BadImageError, NotAWaferMapError) as error:
                    unread.append(f"left out {name}, reviewed as {row.reviewed}: {error}")
                    continue
                if found.doubt:
                    unread.append(f"left out {name}, reviewed as {row.reviewed}: {found.doubt}")
                    continue
                grids.append(found.grid)
                labels.append(row.reviewed)
                names.append(name)
                groups.append(_group(row))
    except RecordsUnavailableError as error:
        raise UnreachableError(f"the records: {error}") from None
    except (DatabaseUrlError, SchemaError) as error:
        raise DataError(f"the records: {error}") from None
    return Dataset(
        "reviewed",
        grids,
        np.array(labels, dtype=np.str_),
        np.array(groups, dtype=np.str_),
        unread=tuple(unread),
        names=names,
    )


def _sent_with(records: Records, row: WaferRow) -> StatedColours | None:
    """Return what the message of a wafer's newest shot stated about its colours."""
    for record in records.wafers(Filter(fab=row.fab, camera=row.camera, imgid=row.imgid)):
        if record.shots and (colours := record.shots[-1].extra.get("colours")):
            return StatedColours.read(colours)
    return None


def _group(row: WaferRow) -> str:
    """Return the wafers that must not be split between training and test: a lot, else what a camera saw in a day."""
    if lot := row.context.get("lot"):
        return f"{row.fab}/lot/{lot}"
    return f"{row.fab}/{row.camera}/{datetime.fromtimestamp(row.timestamp / 1000, UTC).date()}"
