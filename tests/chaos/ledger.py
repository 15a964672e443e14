"""The checker: whether what was published is what was recorded."""

from collections import Counter
from collections.abc import Iterable

from fabwafer.defects import is_defect
from fabwafer.records import DEFAULT_THRESHOLD, PredictionRecord, Records, WaferRecord
from tests.chaos.fleet import Shot


class LostError(AssertionError):
    """What was recorded is not what was published. The text says what is missing, and what is there too often."""


def check(published: set[Shot], wafers: Iterable[WaferRecord], *, whole: bool = True) -> None:
    """Checks that each image published is recorded once, with one prediction per model and at most one alert for each.

    Args:
        published: What must be in the records.
        wafers: What is.
        whole: Whether nothing else may be there.

    Raises:
        LostError: It is not so.
    """
    recorded: Counter[Shot] = Counter()
    wrong: list[str] = []
    models: set[str] = set()
    for wafer in wafers:
        name = (wafer.fab, wafer.camera, wafer.imgid)
        recorded.update((*name, shot.timestamp) for shot in wafer.shots)
        said = Counter((one.model, one.timestamp) for one in wafer.predictions if one.source == "cluster")
        models |= {model for model, _ in said}
        if {moment for _, moment in said} != {shot.timestamp for shot in wafer.shots}:
            wrong.append(f"{name}: {len(wafer.shots)} images, predictions {dict(said)}")
        wrong += [f"{name}: {number} predictions of {which}" for which, number in said.items() if number != 1]
        wrong += [f"{name}: alert {one.alert} of {one}" for one in wafer.predictions if one.alert != _alerts(one)]
    missing, unpublished = published - set(recorded), set(recorded) - published
    twice = [shot for shot, number in recorded.items() if number != 1]
    if len(models) > 1:
        wrong.append(f"one model served, predictions are of {sorted(models)}")
    if missing or twice or wrong or (whole and unpublished):
        raise LostError(
            f"{len(missing)} of {len(published)} images missing {sorted(missing)[:3]}, "
            f"{len(unpublished)} never published {sorted(unpublished)[:3]}, {len(twice)} twice {twice[:3]}, "
            f"{len(wrong)} with wrong predictions or alerts {wrong[:3]}"
        )


def _alerts(said: PredictionRecord) -> bool:
    return is_defect(said.prediction) and said.wafer is not False and said.probability >= DEFAULT_THRESHOLD


def progress(records: Records) -> tuple[int, int]:
    """How many images and predictions are recorded."""
    shots = predictions = 0
    for wafer in records.wafers():
        shots += len(wafer.shots)
        predictions += len(wafer.predictions)
    return shots, predictions
