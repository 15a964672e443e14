"""The retraining Job: champion and reviews in, a gated new version in the model store out.

`python -m fabwafer_training.retrain` is the Job's entry; `fabwafer retrain` is the same by hand.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabwafer.classifier import Classifier
from fabwafer.modelcard import CARD_NAME, ModelCard, read_card
from fabwafer_handlers.archive import build
from fabwafer_training.dataset import DataError, Dataset, joined
from fabwafer_training.gate import Limits, Verdict, judge
from fabwafer_training.job import Material, train_model, weights_to_go_on_from
from fabwafer_training.report import evaluate, predict, write_report
from fabwafer_training.splits import clean, grouped_folds, kept_from_training
from fabwafer_training.store import publish, published, version_folder, work_folder
from fabwafer_training.train import Round, Settings

ALERT_PRECISION = 0.95
RATE = 6e-4
"""A fifth of the rate from scratch: the champion is to be corrected, not forgotten."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a retraining: the version, whether it is in the store, the gate's verdict, and where it all is."""

    version: str
    published: bool
    verdict: Verdict
    folder: Path


@dataclass(frozen=True, slots=True)
class Split:
    """The maps of a retraining: those to train and calibrate on, and the gold set, which shares no lot with them."""

    material: Material
    gold: Dataset


def split(base: Dataset, reviews: Dataset, classes: list[str], champion_seed: int) -> Split:
    """Joins base and reviewed maps, and keeps a fifth of each aside: half to calibrate on, half as the gold set.

    The base is split as the champion's training split it, so that neither model was trained on a gold map.

    Raises:
        DataError: A review names a class that the champion does not have.
    """
    unknown = sorted(set(reviews.labels.tolist()) - set(classes))
    if unknown:
        raise DataError(
            f"the reviews name {', '.join(unknown)}, the champion knows {', '.join(classes)}: "
            "a model with new classes is trained with fabwafer train --from"
        )
    both = joined(base, reviews)
    kept = np.concatenate([_kept(base, champion_seed), _kept(reviews, champion_seed)])
    kept_groups = set(both.groups[kept].tolist())
    cleaned, _ = clean(both)
    aside = np.isin(cleaned.groups, list(kept_groups))
    gold = np.zeros(len(cleaned), dtype=bool)
    gold[aside] = grouped_folds(cleaned.labels[aside], cleaned.groups[aside], 2, champion_seed) == 0
    rest = cleaned.subset(np.flatnonzero(~gold))
    return Split(Material(rest, classes, aside[~gold]), cleaned.subset(np.flatnonzero(gold)))


def _kept(data: Dataset, seed: int) -> NDArray[np.bool_]:
    """Tells which maps are kept aside, counting groups as training does: after cleaning."""
    if len(data) == 0:
        return np.zeros(0, dtype=bool)
    cleaned, _ = clean(data)
    groups = cleaned.groups[kept_from_training(cleaned, seed)]
    return np.isin(data.groups, groups)


def retrain(
    base: Dataset,
    reviews: Dataset,
    champion: Path,
    store: Path,
    *,
    rounds: int,
    maps_per_round: int,
    limits: Limits,
    seed: int,
    tell: Callable[[str], None],
    report: Callable[[Round], None],
) -> Outcome:
    """Goes on from the champion with reviewed maps and a replay of the base, and publishes what passes the gate.

    The version follows from what goes in, so that the same run again finds what is there: a finished version is not
    made twice, and a killed run is taken up where it was.

    Raises:
        DataError: The maps cannot be used.
        ModelRefusedError: The champion cannot be gone on from.
        StoreError: The store cannot be written.
    """
    card = read_card(champion)
    start, shape = weights_to_go_on_from(champion, card.classes)
    settings = Settings(shape=shape, epochs=rounds, maps_per_epoch=maps_per_round, rate=RATE, seed=seed, threads=1)
    version = _version(base, reviews, card, settings, limits)
    if published(store, version) is not None:
        folder = version_folder(store, version)
        tell(f"the version {version} of these maps and settings is in the store already")
        return Outcome(version, True, _read_verdict(folder / "report"), folder)
    parts = split(base, reviews, card.classes, int(card.training.get("seed", 0)))
    work = work_folder(store, version)
    if not (work / CARD_NAME).exists():
        about = {
            "name": card.name,
            "version": version,
            "description": f"Retrained from {card.version} with {len(reviews)} reviewed maps.",
            "limits": card.limits,
            "notice": card.notice,
            "citations": card.citations,
        }
        train_model(parts.material, work, settings, about, tell=tell, report=report, start=start)
    tell(f"comparing with the champion {card.version} on {len(parts.gold)} gold maps")
    verdict = _compare(champion, work, parts.gold, limits)
    folder = work
    if verdict.passed or not verdict.decided:
        build(work, work)
        folder = publish(store, version)
    return Outcome(version, folder != work, verdict, folder)


def _compare(champion: Path, candidate: Path, gold: Dataset, limits: Limits) -> Verdict:
    """Measures both on the gold set, writes both reports and the verdict, and returns the verdict."""
    old, new = Classifier(champion), Classifier(candidate)
    verdict = judge(predict(old, gold)[0], *predict(new, gold), classes=new.card.classes, limits=limits)
    folder = candidate / "report"
    write_report(evaluate(new, gold, ALERT_PRECISION), folder)
    write_report(evaluate(old, gold, ALERT_PRECISION), folder / "champion")
    (folder / "gate.json").write_text(json.dumps(asdict(verdict), indent=2) + "\n", encoding="utf-8")
    return verdict


def _read_verdict(report: Path) -> Verdict:
    said: dict[str, Any] = json.loads((report / "gate.json").read_text(encoding="utf-8"))
    difference, low, high = said["macro_f1_difference"]
    return Verdict(said["decided"], said["passed"], said["reasons"], (difference, low, high), Limits(**said["limits"]))


def _version(base: Dataset, reviews: Dataset, champion: ModelCard, settings: Settings, limits: Limits) -> str:
    parts = [base.digest(), reviews.digest(), champion.digest, repr(settings), repr(limits)]
    return "retrained-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def main() -> None:
    """Runs the command `fabwafer retrain`."""
    from fabwafer_training.commands.retrain import app

    app()


if __name__ == "__main__":
    main()
