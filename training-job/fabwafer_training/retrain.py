"""The retraining Job: champion and reviews in, a gated new version in the model store out.

`python -m fabwafer_training.retrain` is the Job's entry; `fabwafer retrain` is the same by hand.
"""

import hashlib
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabwafer.models.archive import ARCHIVE_NAME, build
from fabwafer.models.card import CARD_NAME, ModelCard, read_card
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from fabwafer.models.store import Store
from fabwafer.records import Records, RolloutChangedError
from fabwafer_training import processes
from fabwafer_training.dataset import DataError, Dataset, joined
from fabwafer_training.gate import Limits, Verdict, judge
from fabwafer_training.job import Material, train_model, weights_to_go_on_from
from fabwafer_training.report import evaluate, write_report
from fabwafer_training.splits import clean, grouped_folds, held_out_by_name, held_out_from_training
from fabwafer_training.train import CHECKPOINT, Epoch, Settings

ALERT_PRECISION = 0.95
RATE = 6e-4
"""A fifth of the rate from scratch: the champion is to be corrected, not forgotten."""
BACK = 0.5
"""How far a retrained network goes back to the champion: docs/model-comparisons.md shows what it is worth."""
TRIAL_SHARE = 0.1
"""Of the images, how many go to a candidate that the gate lets through."""
AUTHOR = "fabwafer retrain"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a retraining: the version, whether it is in the store, the gate's verdict, and where it all is.

    `place` is a folder, or the URL of the version in a store by URL.
    """

    version: str
    published: bool
    verdict: Verdict
    place: str


@dataclass(frozen=True, slots=True)
class Split:
    """The maps of a retraining: those to train and calibrate on, and the gold set, which shares no lot with them."""

    material: Material
    gold: Dataset


def split(base: Dataset, reviews: Dataset, classes: list[str], champion_seed: int) -> Split:
    """Joins base and reviewed maps, and keeps a fifth of each aside: half to calibrate on, half as the gold set.

    The base is split as the champion's training split it, and reviews by the name of their lot alone: neither model was
    trained on a gold map, and none that is one now will be trained on when more reviews have come. Of the reviewed maps
    the label alone counts; of the others also what the champion says, so that it is corrected and forgets nothing.

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
    held_out = np.concatenate([_held_out(base, champion_seed), held_out_by_name(reviews.groups)])
    held_out_groups = set(both.groups[held_out].tolist())
    cleaned, left_out = clean(both)
    rows = np.setdiff1d(np.arange(len(both)), np.concatenate([left_out.conflicting, left_out.repeated]))
    aside = np.isin(cleaned.groups, list(held_out_groups))
    gold = np.zeros(len(cleaned), dtype=bool)
    gold[aside] = grouped_folds(cleaned.labels[aside], cleaned.groups[aside], 2, champion_seed) == 0
    taught = (rows < len(base))[~gold]
    rest = cleaned.subset(np.flatnonzero(~gold))
    return Split(Material(rest, classes, aside[~gold], champion_seed, taught), cleaned.subset(np.flatnonzero(gold)))


def _kept_seed(card: ModelCard) -> int:
    """The seed of the split that a model was trained with; in the first cards it was that of the training."""
    return int(card.training.get("held_out_seed", card.training.get("seed", 0)))


def _held_out(data: Dataset, seed: int) -> NDArray[np.bool_]:
    """Tells which maps are held out, counting groups as training does: after cleaning."""
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
    """Goes on from the champion with reviewed maps and a replay of the base, and publishes what passes the gate.

    The version follows from what goes in, so that the same run again finds what is there: a finished version is not
    made twice, and a killed run is taken up where it was.

    Returns:
        What became of it; None in all but the first of several processes.

    Raises:
        DataError: The maps cannot be used.
        ModelRefusedError: The champion cannot be gone on from.
        StoreError: The store cannot be written.
    """
    for sentence in (*base.unread, *reviews.unread):
        tell(sentence)
    card = read_card(champion)
    version = _version(base, reviews, card, (epochs, maps_per_epoch, seed), limits)
    if store.published(version) is not None:
        tell(f"the version {version} of these maps and settings is in the store already")
        verdict = _read_verdict(store.read(version, "report/gate.json"))
        return Outcome(version, True, verdict, store.place(version))
    parts = split(base, reviews, card.classes, _kept_seed(card))
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
            description=f"Retrained from {card.version} with {len(reviews)} reviewed maps.",
            tell=tell,
            report=report,
        )
    if not processes.is_first():
        return None
    tell(f"comparing with the champion {card.version} on {len(parts.gold)} gold maps")
    verdict = _compare(champion, work, parts.gold, limits)
    if verdict.decided and not verdict.passed:
        return Outcome(version, False, verdict, str(work))
    build(work, work / ARCHIVE_NAME)
    (work / CHECKPOINT).unlink(missing_ok=True)  # left by a run that was killed right after it wrote the card
    return Outcome(version, True, verdict, store.publish(version))


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
    """Trains a new version from the champion, which is also its teacher (Li and Hoiem, "Learning without Forgetting").

    Args:
        material: The maps, with those that the champion is asked about.
        champion: The champion's folder.
        folder: Where to write the new version.
        epochs: How often to draw maps and train on them.
        maps_per_epoch: Maps drawn in a round.
        seed: Decides everything that is left to chance.
        version: What the new version is called.
        description: A sentence for its card.
        tell: Called with a sentence now and then.
        report: Called after each round.

    Raises:
        ModelRefusedError: The champion cannot be gone on from.
    """
    card = read_card(champion)
    start, shape = weights_to_go_on_from(champion, card.classes)
    about = {
        "name": card.name,
        "version": version,
        "description": description,
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
        # Fitted anew on few maps, it would move all classes for the sake of those that were reviewed.
        prior_step=card.training.get("prior_step"),
        back=BACK,
    )


def champion_of(records: Records, store: Store, to: Path, tell: Callable[[str], None]) -> Path:
    """Returns the folder of the model that is to serve: the champion in the records, else the shipped model.

    Args:
        records: Where the champion is named.
        store: Where it is.
        to: A folder to load it into, where the store is not a folder itself.
        tell: Called with a sentence when the champion is neither in the store nor shipped.

    Raises:
        StoreError: The store cannot be used, or the champion in it is damaged.
    """
    rollout, shipped = records.rollout(), default_model()
    version = rollout.champion if rollout else None
    if version is None or version == read_card(shipped).version:
        return shipped
    if version not in store.names():
        tell(f"the champion {version} is not in {store}: going on from the shipped model")
        return shipped
    return store.fetch(version, to)


def put_on_trial(records: Records, version: str) -> bool:
    """Makes a version the candidate, with a tenth of the images.

    A version that was candidate or champion before is left as people left it: so the same run again changes nothing.

    Returns:
        Whether it was made the candidate.
    """
    while True:
        rollouts = records.rollouts()
        if any(version in (said.champion, said.candidate) for said in rollouts):
            return False
        champion, last = (rollouts[0].champion, rollouts[0].number) if rollouts else (None, 0)
        try:
            records.set_rollout(champion, candidate=version, share=TRIAL_SHARE, author=AUTHOR, after=last)
        except RolloutChangedError:  # a person decided on the champion at this moment: theirs stays
            continue
        return True


def _compare(champion: Path, candidate: Path, gold: Dataset, limits: Limits) -> Verdict:
    """Measures both on the gold set, writes both reports and the verdict, and returns the verdict."""
    asked = Classifier(candidate)
    old, new = (evaluate(one, gold, ALERT_PRECISION) for one in (Classifier(champion), asked))
    verdict = judge(old.probabilities, new.probabilities, new.targets, classes=asked.card.classes, limits=limits)
    folder = candidate / "report"
    write_report(new, folder)
    write_report(old, folder / "champion")
    (folder / "gate.json").write_text(json.dumps(asdict(verdict), indent=2) + "\n", encoding="utf-8")
    return verdict


def _read_verdict(written: bytes) -> Verdict:
    said: dict[str, Any] = json.loads(written)
    difference, low, high = said["macro_f1_difference"]
    return Verdict(said["decided"], said["passed"], said["reasons"], (difference, low, high), Limits(**said["limits"]))


def _version(
    base: Dataset, reviews: Dataset, champion: ModelCard, settings: tuple[int, int, int], limits: Limits
) -> str:
    parts = [base.digest(), reviews.digest(), champion.digest, repr(settings), repr(limits)]
    return "retrained-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def main() -> None:
    """Runs the command `fabwafer retrain`."""
    from fabwafer_training.commands.retrain import app

    # As the first process of a container it would else not hear that it is to end.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()


if __name__ == "__main__":
    main()
