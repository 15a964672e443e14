"""Retraining: a new version from the champion and the reviews, judged by the gate and published into the store."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabwafer.models.archive import ARCHIVE_NAME, build
from fabwafer.models.card import CARD_NAME, ModelCard, ModelRefusedError, read_card
from fabwafer.models.classifier import Classifier
from fabwafer.models.store import Store
from fabwafer_training import processes
from fabwafer_training.dataset import DataError, Dataset, joined
from fabwafer_training.gate import Verdict, judge
from fabwafer_training.job import Material, train_model, weights_to_go_on_from
from fabwafer_training.known_classes import of_known_classes
from fabwafer_training.limits import Limits
from fabwafer_training.report import evaluate, write_report
from fabwafer_training.seen_maps import SeenMaps, read_seen_maps, seen_rows
from fabwafer_training.splits import clean, gold_half, held_out_by_name, held_out_from_training
from fabwafer_training.train import CHECKPOINT, Epoch, Settings

ALERT_PRECISION = 0.95
RATE = 6e-4
"""Learning rate, a fifth of that from scratch: the champion is to be corrected, not forgotten."""
LEAST_HELD_OUT = 4
"""Groups that are held out at least: two halves to calibrate on and measure, and as many for the gold set."""
BACK = 0.5
"""How far the retrained weights are moved back to the champion's, 0 to 1; measured in docs/model-comparisons.md."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a retraining.

    Attributes:
        version: The new version.
        published: Whether it is in the store.
        verdict: The gate's.
        learned: How many reviewed maps it was trained on.
        held_out: How many reviewed maps were held out, to calibrate and compare with.
        location: Where its files and its report are: a folder, or a URL in a store by URL.
    """

    version: str
    published: bool
    verdict: Verdict
    learned: int
    held_out: int
    location: str


@dataclass(frozen=True, slots=True)
class Split:
    """The maps of a retraining: for training and calibration, and the gold set, which shares no lot with them.

    Attributes:
        material: The maps for training and calibration.
        gold: The gold set.
        learned: How many reviewed maps are trained on.
        held_out: How many reviewed maps are in the gold set or calibrated with. Conflicting and repeated ones count
            nowhere.
    """

    material: Material
    gold: Dataset
    learned: int
    held_out: int


def split(
    base: Dataset, reviews: Dataset, classes: list[str], champion_seed: int, seen: SeenMaps = frozenset()
) -> Split:
    """Join base and reviewed maps, and hold out a fifth of each: half for calibration, half as the gold set.

    The base is split as for the champion's training, and reviews by the names of their lots alone. So neither model was
    trained on a gold map, and no gold map will be trained on when more reviews have come. The targets of reviewed maps
    are their labels alone, those of the others also the champion's answers, so that it forgets nothing.

    Args:
        base: The maps that are replayed, of the champion's classes.
        reviews: The reviewed maps, of the champion's classes.
        classes: The champion's classes.
        champion_seed: The seed of the split that the champion was trained with.
        seen: The maps that the champion or one before it was trained on, where known: none of them is a gold map.

    Raises:
        DataError: No reviewed map is left to learn from, no map of a class is left to train on, or too few maps are
            held out to calibrate and compare with.
    """
    both = joined(base, reviews)
    held_out = np.concatenate([_held_out(base, champion_seed), held_out_by_name(reviews.groups)])
    held_out_groups = set(both.groups[held_out].tolist())
    cleaned, left_out = clean(both)
    rows = np.setdiff1d(np.arange(len(both)), np.concatenate([left_out.conflicting, left_out.repeated]))
    reviewed = rows >= len(base)
    aside = np.isin(cleaned.groups, list(held_out_groups))
    learned, reviews_held_out = int((reviewed & ~aside).sum()), int((reviewed & aside).sum())
    if not learned:
        raise DataError(
            f"of {len(reviews)} reviewed maps none is left to learn from: {reviews_held_out} are held out, of "
            f"{len(set(reviews.groups.tolist()))} lots or single wafers, and the others repeat or contradict another "
            "map; review wafers of other lots"
        )
    trained = set(cleaned.labels[~aside].tolist())
    if absent := [name for name in classes if name not in trained]:
        raise DataError(
            f"no map of {', '.join(absent)} is left to train on, and without one the new version would have no answer "
            "for that class: give base maps that have it: --base or FABWAFER_BASE"
        )
    if len(set(cleaned.groups[aside].tolist())) < LEAST_HELD_OUT:
        raise DataError(
            f"expected at least {LEAST_HELD_OUT} groups of maps held out to calibrate and compare with, found "
            f"{len(set(cleaned.groups[aside].tolist()))}: give more base maps: --base or FABWAFER_BASE"
        )
    gold = gold_half(cleaned, aside, champion_seed)
    rest = cleaned.subset(np.flatnonzero(~gold))
    gold_maps = cleaned.subset(np.flatnonzero(gold))
    gold_maps = gold_maps.subset(np.flatnonzero(~seen_rows(gold_maps, seen)))
    if len(gold_maps) == 0:
        raise DataError(
            f"the champion was trained on all {gold.sum()} gold maps, so nothing is left to compare on: give base maps "
            "that it was not trained on: --base or FABWAFER_BASE"
        )
    return Split(
        Material(rest, classes, aside[~gold], champion_seed, ~reviewed[~gold]),
        gold_maps,
        learned,
        reviews_held_out,
    )


def _held_out_seed(card: ModelCard) -> int:
    """Return the seed of the split that a model was trained with; in the first cards it was that of the training."""
    return int(card.training.get("held_out_seed", card.training.get("seed", 0)))


def _held_out(data: Dataset, seed: int) -> NDArray[np.bool_]:
    """Return which maps are held out, bool [n]; groups are counted after cleaning, as in training."""
    if len(data) == 0:  # a base of other classes
        return np.zeros(0, dtype=bool)
    cleaned, _ = clean(data)
    groups = cleaned.groups[held_out_from_training(cleaned, seed)]
    return np.isin(data.groups, groups)


def retrain(
    base: Dataset,
    reviews: Dataset,
    champion: Path,
    store: Store,
    *,
    epochs: int,
    maps_per_epoch: int,
    limits: Limits,
    seed: int,
    tell: Callable[[str], None],
    report: Callable[[Epoch], None],
) -> Outcome | None:
    """Train the champion further on reviewed maps and a replay of the base, and publish the version unless refused.

    The version is named by a digest of the input. So the same run again finds a finished version and does not repeat
    it, and a killed run is continued after its last finished epoch.

    Args:
        base: The maps that are replayed.
        reviews: The reviewed maps.
        champion: The champion's folder.
        store: Where the version is published.
        epochs: How often to draw maps and train on them.
        maps_per_epoch: Maps drawn in an epoch.
        limits: The gate's.
        seed: Of all random numbers.
        tell: Called with a sentence now and then.
        report: Called after each epoch.

    Returns:
        The result; None in all but the first of several processes.

    Raises:
        DataError: The maps cannot be used.
        ModelRefusedError: The champion came without weights, or its files are not those of its card.
        StoreError: The store cannot be read or written.
    """
    card = read_card(champion)
    base, reviews = (of_known_classes(data, card.classes) for data in (base, reviews))
    for sentence in (*base.unread, *reviews.unread):
        tell(sentence)
    version = _version(base, reviews, card, (epochs, maps_per_epoch, seed), limits)
    seen = read_seen_maps(champion, card)
    parts = split(base, reviews, card.classes, _held_out_seed(card), seen or frozenset())

    def outcome(verdict: Verdict, location: str, *, published: bool) -> Outcome:
        return Outcome(version, published, verdict, parts.learned, parts.held_out, location)

    if store.published(version) is not None:
        tell(f"the version {version} of these maps and settings is in the store already")
        verdict = _read_verdict(store.read(version, "report/gate.json"))
        return outcome(verdict, store.location(version), published=True)
    work = store.work_folder(version)
    if not (work / CARD_NAME).exists():
        go_on(
            parts.material,
            champion,
            work,
            epochs=epochs,
            maps_per_epoch=maps_per_epoch,
            seed=seed,
            version=version,
            description=(
                f"Retrained from {card.version} with reviewed maps: {parts.learned} learned, {parts.held_out} held out."
            ),
            tell=tell,
            report=report,
        )
    if not processes.is_first():
        return None
    tell(f"comparing with the champion {card.version} on {len(parts.gold)} gold maps")
    verdict = _compare(champion, work, parts.gold, limits)
    if verdict.decided and not verdict.passed:
        return outcome(verdict, str(work), published=False)
    build(work, work / ARCHIVE_NAME)
    (work / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed right after it wrote the card
    return outcome(verdict, store.publish(version), published=True)


def go_on(
    material: Material,
    champion: Path,
    folder: Path,
    *,
    epochs: int,
    maps_per_epoch: int,
    seed: int,
    version: str,
    description: str,
    tell: Callable[[str], None],
    report: Callable[[Epoch], None],
) -> None:
    """Train a new version from the champion, which is also its teacher (Li and Hoiem, "Learning without Forgetting").

    Args:
        material: The maps; `taught` marks those with soft targets from the champion.
        champion: The champion's folder.
        folder: Where to write the new version.
        epochs: How often to draw maps and train on them.
        maps_per_epoch: Maps drawn in an epoch.
        seed: Of all random numbers.
        version: What the new version is called.
        description: A sentence for its card.
        tell: Called with a sentence now and then.
        report: Called after each epoch.

    Raises:
        ModelRefusedError: The champion came without weights, or its files are not those of its card.
    """
    card = read_card(champion)
    start, shape = weights_to_go_on_from(champion, card.classes)
    about = {
        "name": card.name,
        "version": version,
        "description": description,
        "good": card.good,
        "limits": card.limits,
        "notice": card.notice,
        "citations": card.citations,
    }
    train_model(
        material,
        folder,
        Settings(
            shape=shape,
            epochs=epochs,
            maps_per_epoch=maps_per_epoch,
            rate=RATE,
            seed=seed,
            threads=processes.threads(),
        ),
        about,
        tell=tell,
        report=report,
        start=start,
        teachers=[champion],
        # Fitted again on few maps, it would shift all classes towards the reviewed ones.
        prior_step=card.training.get("prior_step"),
        interpolation=BACK,
        seen_before=read_seen_maps(champion, card),
    )


def _compare(champion: Path, candidate: Path, gold: Dataset, limits: Limits) -> Verdict:
    """Evaluate both on the gold set, write both reports and the verdict, and return the verdict."""
    folder = candidate / "report"
    folder.mkdir(exist_ok=True)
    old = evaluate(Classifier(champion), gold, ALERT_PRECISION)
    write_report(old, folder / "champion")
    try:
        classifier = Classifier(candidate)
    except ModelRefusedError as error:
        verdict = Verdict(True, False, [str(error)], None, limits)
    else:
        new = evaluate(classifier, gold, ALERT_PRECISION)
        write_report(new, folder)
        verdict = judge(
            old.probabilities,
            new.probabilities,
            new.targets,
            classes=classifier.card.classes,
            limits=limits,
            good=classifier.card.good_class,
        )
    (folder / "gate.json").write_text(json.dumps(asdict(verdict), indent=2) + "\n", encoding="utf-8")
    return verdict


def _read_verdict(written: bytes) -> Verdict:
    read: dict[str, Any] = json.loads(written)
    difference, low, high = read["macro_f1_difference"]  # a candidate without answers is not published
    return Verdict(read["decided"], read["passed"], read["reasons"], (difference, low, high), Limits(**read["limits"]))


def _version(
    base: Dataset, reviews: Dataset, champion: ModelCard, settings: tuple[int, int, int], limits: Limits
) -> str:
    parts = [base.digest(), reviews.digest(), champion.digest, repr(settings), repr(limits)]
    return "retrained-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
