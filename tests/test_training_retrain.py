"""Retraining: from the champion and reviewed maps to a version in the store, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fabwafer.classifier import Classifier
from fabwafer.modelcard import ModelRefusedError, read_card, verify
from fabwafer_training.commands.retrain import app
from fabwafer_training.commands.train import app as train_app
from fabwafer_training.dataset import DataError, Dataset
from fabwafer_training.gate import Limits
from fabwafer_training.job import prepare, train_model, weights_to_go_on_from
from fabwafer_training.network import Shape
from fabwafer_training.readers import read
from fabwafer_training.readers.npz import write_npz
from fabwafer_training.retrain import Outcome, retrain, split
from fabwafer_training.store import StoreError, publish, published, version_folder, work_folder
from fabwafer_training.train import Round, Settings
from tests.tiny_models import make

BASE = "synthetic:270"
REVIEWS = "synthetic:45:77"


def quiet(sentence: str) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("champion") / "wafer"
    settings = Settings(shape=Shape((8, 16), 1), epochs=6, maps_per_epoch=1024, seed=0)
    about = {"name": "wafer", "version": "first", "notice": "Keep this."}
    train_model(prepare(read(BASE), 0, quiet), folder, settings, about, tell=quiet, report=lambda _: None)
    return folder


class _KilledError(Exception):
    pass


def run(champion: Path, store: Path, limits: Limits | None = None, die_after: int = 0) -> Outcome:
    def report(done: Round) -> None:
        if done.number == die_after:
            raise _KilledError

    return retrain(
        read(BASE),
        read(REVIEWS),
        champion,
        store,
        rounds=2,
        maps_per_round=256,
        limits=limits or Limits(),
        seed=0,
        tell=quiet,
        report=report,
    )


def test_no_gold_map_is_trained_on_and_no_lot_is_on_both_sides() -> None:
    base, reviews = read(BASE), read(REVIEWS)
    classes = prepare(base, 0, quiet).classes
    parts = split(base, reviews, classes, champion_seed=0)
    trained, calibrated = parts.material.side(kept=False), parts.material.side(kept=True)
    sides = [set(side.digests()) for side in (trained, calibrated, parts.gold)]
    lots = [set(side.groups.tolist()) for side in (trained, calibrated, parts.gold)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not sides[first] & sides[second]
        assert not lots[first] & lots[second]
    assert sum(map(len, sides)) == len(set(base.digests()) | set(reviews.digests()))
    champion_trained_on = set(prepare(base, 0, quiet).side(kept=False).digests())
    assert not champion_trained_on & sides[2]


def test_a_small_gold_set_publishes_a_version_that_waits_for_a_person(champion: Path, tmp_path: Path) -> None:
    with pytest.raises(_KilledError):
        run(champion, tmp_path, die_after=1)
    assert not (tmp_path / "versions").exists(), "a killed run leaves no half version"

    outcome = run(champion, tmp_path)
    assert outcome.published
    assert not outcome.verdict.decided
    assert outcome.verdict.reasons[0].startswith("the gold set is too small to decide")
    card = read_card(outcome.folder)
    verify(outcome.folder, card)
    assert outcome.folder == tmp_path / "versions" / card.version
    assert card.notice == "Keep this."
    names = {path.name for path in outcome.folder.iterdir()}
    assert names == {"card.json", "model.onnx", "model-int8.onnx", "weights.npz", "wafer.mar", "report"}
    report = {path.name for path in (outcome.folder / "report").iterdir()}
    assert report == {"evaluation.json", "confusion.png", "risk-coverage.png", "gate.json", "champion"}

    before = {path: path.stat().st_mtime_ns for path in outcome.folder.rglob("*")}
    again = run(champion, tmp_path)
    assert again == outcome
    assert before == {path: path.stat().st_mtime_ns for path in outcome.folder.rglob("*")}


def test_what_the_gate_refuses_is_not_published_and_ends_with_3(champion: Path, tmp_path: Path) -> None:
    words = ["--store", str(tmp_path), "--base", BASE, "--reviews", REVIEWS, "--champion", str(champion), "--json"]
    words += ["--rounds", "1", "--maps-per-round", "128", "--gold-maps", "1", "--recall-floor", "1.0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3, result.stderr
    said = json.loads(result.stdout)
    assert not said["published"]
    assert any("is below 1.000" in reason for reason in said["verdict"]["reasons"])
    assert "the gate refuses" in result.stderr
    assert not (tmp_path / "versions").exists()
    assert (Path(said["folder"]) / "report" / "confusion.png").exists()


def test_going_on_with_other_classes_keeps_all_but_the_last_layer(champion: Path, tmp_path: Path) -> None:
    own = read("synthetic:120:5")
    names = np.where(np.isin(own.labels, ["Loc", "Scratch", "Edge-Loc"]), "local", "global")
    write_npz(tmp_path / "own.npz", Dataset("own", own.grids, names, own.groups))
    words = [str(tmp_path / "own.npz"), "--out", str(tmp_path / "out"), "--from", str(champion), "--rounds", "4"]
    result = CliRunner().invoke(train_app, [*words, "--maps-per-round", "256"])
    assert result.exit_code == 0, result.stderr
    card = read_card(tmp_path / "out")
    assert card.classes == ["global", "local"]
    assert card.training["shape"] == {"widths": [8, 16], "blocks": 1}
    assert {one.label for one in Classifier(tmp_path / "out").classify_grids(own.grids)} <= {"global", "local"}


def test_layers_thaw_one_after_the_other(champion: Path, tmp_path: Path) -> None:
    from fabwafer_training.augment import draw_many
    from fabwafer_training.train import train

    data = read("synthetic:36:6")
    classes = read_card(champion).classes
    start, shape = weights_to_go_on_from(champion, classes)
    inputs, _ = draw_many(data.grids, np.zeros(len(data), dtype=bool), 0)
    targets = np.array([classes.index(label) for label in data.labels.tolist()])
    settings = Settings(shape=shape, epochs=4, maps_per_epoch=64, batch=32, gradual=True)
    states: list[dict[str, torch.Tensor]] = []

    def look(done: Round) -> None:
        states.append(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"])

    train(inputs, targets, classes=len(classes), settings=settings, folder=tmp_path, report=look, start=start)
    for name, begins in (
        ("head.weight", 0),
        ("stages.1.first.weight", 1),
        ("stem.0.weight", 2),
        ("stem.1.running_mean", 2),
    ):
        changed = [not torch.equal(state[name], start[name]) for state in states]
        assert changed == [number >= begins for number in range(4)], name


def test_reviews_of_a_class_that_the_champion_does_not_have_are_refused(champion: Path, tmp_path: Path) -> None:
    own = read("synthetic:9")
    with pytest.raises(DataError, match="the reviews name Swirl, the champion knows Center"):
        split(own, Dataset("own", own.grids, np.array(["Swirl"] * 9), own.groups), read_card(champion).classes, 0)


def test_a_model_without_weights_cannot_be_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="came without weights"):
        weights_to_go_on_from(make(tmp_path), ["a", "b"])


def test_the_store_takes_whole_versions_only_and_each_once(tmp_path: Path) -> None:
    assert published(tmp_path, "v1") is None
    with pytest.raises(StoreError, match="is not complete"):
        publish(tmp_path, "v1")
    make(work_folder(tmp_path, "v1"), version="v1")
    assert publish(tmp_path, "v1") == version_folder(tmp_path, "v1")
    card = published(tmp_path, "v1")
    assert card is not None
    assert card.version == "v1"
    make(work_folder(tmp_path, "v1"), version="v1")
    with pytest.raises(StoreError, match="in the store already"):
        publish(tmp_path, "v1")
    (version_folder(tmp_path, "v1") / card.files["int8"].name).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="is damaged"):
        published(tmp_path, "v1")


@pytest.mark.parametrize("version", ["../up", "", "a/b", ".hidden"])
def test_a_version_stays_inside_the_store(tmp_path: Path, version: str) -> None:
    with pytest.raises(StoreError, match="expected a version of letters"):
        version_folder(tmp_path, version)
