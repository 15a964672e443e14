"""The maps of labelled data whose classes a model has: what that model can be trained further on."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

import numpy as np

from fabwafer_training.dataset import Dataset

NAMED: Final = 10
"""Maps of an unknown class that are named; of base maps with thousands of them, naming all would help nobody."""


def of_known_classes(data: Dataset, classes: Sequence[str], of: str = "the champion") -> Dataset:
    """Return the maps whose label is one of a model's classes in any case, under the model's spelling of it.

    The others are left out, with a sentence in `unread` on each label that is none of the classes.

    Args:
        data: Labelled maps.
        classes: The model's classes.
        of: What the sentences call the model.
    """
    spelling = {name.casefold(): name for name in classes}
    labels = [spelling.get(label.casefold()) for label in data.labels.tolist()]
    known = data.subset(np.flatnonzero([label is not None for label in labels]))
    unknown = sorted({label for label in data.labels.tolist() if label.casefold() not in spelling})
    return replace(
        known,
        labels=np.array([label for label in labels if label is not None], dtype=np.str_),
        unread=(*data.unread, *(_sentence(data, label, spelling, of) for label in unknown)),
    )


def _sentence(data: Dataset, label: str, spelling: dict[str, str], of: str) -> str:
    rows = np.flatnonzero(data.labels == label).tolist()
    named = ", ".join(data.names[row] for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    close = get_close_matches(label.casefold(), spelling, 1)
    meant = f" (did you mean {spelling[close[0]]}?)" if close else ""
    return f"left out {len(rows)} {data.name} maps labelled {label!r}, no class of {of}{meant}: {named}{more}"
