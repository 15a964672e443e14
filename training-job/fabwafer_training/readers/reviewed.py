"""The wafers that people reviewed, from the records: the newest image of each, with the class of its last review."""

from collections import Counter

import numpy as np

from fabwafer.defects import NOT_A_WAFER, canonical_name
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
from fabwafer_training.dataset import CLASS_NAME_RULE, DataError, Dataset, UnreachableError, can_name_class


def read_reviewed(url: str) -> Dataset:
    """Read the reviewed wafers of the records. They are grouped by lot; a wafer without one is a group of its own.

    Wafers without a stored image, or whose last review names no wafer map, are left out. So are images that cannot
    be read, or whose colours leave a doubt about passed and failed, and reviews that cannot name a class, with a
    sentence on each: one of them must not keep the others from being learned. Reviews that differ in nothing but the
    case count as the spelling that most of them have.

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
                label = canonical_name(row.reviewed or "")
                if row.reviewed is None or label == NOT_A_WAFER:
                    continue
                image = records.image(row.fab, row.camera, row.imgid)
                if image is None:
                    continue
                name = f"{row.fab}/{row.camera}/{row.imgid}"
                if not can_name_class(label):
                    unread.append(f"left out {name}, reviewed as {label!r}: {CLASS_NAME_RULE}")
                    continue
                try:
                    found = read(image, _sent_with(records, row) or set_for(row.fab, row.camera))
                except (BadImageError, NotAWaferMapError) as error:
                    unread.append(f"left out {name}, reviewed as {label}: {error}")
                    continue
                if found.doubt:
                    unread.append(f"left out {name}, reviewed as {label}: {found.doubt}")
                    continue
                grids.append(found.grid)
                labels.append(label)
                names.append(name)
                groups.append(_group(row))
    except RecordsUnavailableError as error:
        raise UnreachableError(f"the records: {error}") from None
    except (DatabaseUrlError, SchemaError) as error:
        raise DataError(f"the records: {error}") from None
    return Dataset(
        "reviewed",
        grids,
        np.array(_one_spelling(labels), dtype=np.str_),
        np.array(groups, dtype=np.str_),
        unread=tuple(unread),
        names=names,
    )


def _one_spelling(labels: list[str]) -> list[str]:
    often = Counter(labels)
    chosen = {label.casefold(): label for label in sorted(often, key=lambda label: (often[label], label))}
    return [chosen[label.casefold()] for label in labels]


def _sent_with(records: Records, row: WaferRow) -> StatedColours | None:
    """Return what the message of a wafer's newest shot stated about its colours."""
    for record in records.wafers(Filter(fab=row.fab, camera=row.camera, imgid=row.imgid)):
        if record.shots and (colours := record.shots[-1].extra.get("colours")):
            return StatedColours.read(colours)
    return None


def _group(row: WaferRow) -> str:
    """Return the wafers that must not be split between training and test: a lot, else the wafer alone."""
    if lot := row.context.get("lot"):
        return f"{row.fab}/lot/{lot}"
    return f"{row.fab}/{row.camera}/{row.imgid}"
