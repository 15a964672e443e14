"""The wafers that people reviewed, from the records: the newest image of each, with the class of its last review."""

from collections import Counter

import numpy as np

from fabwafer.defects import NOT_A_WAFER, canonical_name
from fabwafer.maps.image_file import BadImageError
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.wafermap import decode
from fabwafer.records import DatabaseUrlError, Filter, Records, RecordsUnavailableError, SchemaError, WaferRow
from fabwafer_training.dataset import CLASS_NAME_RULE, DataError, Dataset, UnreachableError, can_name_class


def read_reviewed(url: str) -> Dataset:
    """Read the reviewed wafers of the records. They are grouped by lot; a wafer without one is a group of its own.

    Wafers without a stored image, or whose last review names no wafer map, are left out. So are images that cannot
    be read and reviews that cannot name a class, with a sentence on each: one of them must not keep the others from
    being learned. Reviews that differ in nothing but the case count as the spelling that most of them have.

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
                    grids.append(decode(image))
                except (BadImageError, NotAWaferMapError) as error:
                    unread.append(f"left out {name}, reviewed as {label}: {error}")
                    continue
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


def _group(row: WaferRow) -> str:
    """Return the wafers that must not be split between training and test: a lot, else the wafer alone."""
    if lot := row.context.get("lot"):
        return f"{row.fab}/lot/{lot}"
    return f"{row.fab}/{row.camera}/{row.imgid}"
