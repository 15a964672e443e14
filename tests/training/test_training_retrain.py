"""Retraining: from the champion and reviewed maps to a version in the store, whole or not at all."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fabwafer.models.card import ModelRefusedError, read_card, verify
from fabwafer.models.classifier import Classifier
from fabwafer.models.store import Store, open_store
from fabwafer.records import Records
from fabwafer_training.commands.evaluate import app as evaluate_app
from fabwafer_training.commands.retrain import app
from fabwafer_training.commands.train import app as train_app
from fabwafer_training.dataset import DataError, Dataset, joined
from fabwafer_training.job import prepare, train_model, weights_to_go_on_from
from fabwafer_training.known_classes import of_known_classes
from fabwafer_training.limits import Limits
from fabwafer_training.network import Shape, WaferNet
from fabwafer_training.readers import read
from fabwafer_training.readers.npz import write_npz
from fabwafer_training.retrain import Outcome, retrain, split
from fabwafer_training.seen_maps import digests_of, read_seen_maps
from fabwafer_training.splits import held_out_by_name
from fabwafer_training.train import CHECKPOINT, Epoch, Settings
from fabwafer_training.weights import interpolate_weights
from tests.support.object_store import Bucket
from tests.support.tiny_models import make

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


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    own: Bucket = request.getfixturevalue("bucket")
    return open_store(f"{own.url}/models", tmp_path / "work")


class _KilledError(Exception):
    pass


def run(champion: Path, store: Store, die_after: int = 0, epochs: list[int] | None = None) -> Outcome:
    def report(done: Epoch) -> None:
        if epochs is not None:
            epochs.append(done.number)
        if done.number == die_after:
            raise _KilledError

    outcome = retrain(
        read(BASE),
        read(REVIEWS),
        champion,
        store,
        epochs=2,
        maps_per_epoch=256,
        limits=Limits(macro_f1_floor=0.0),
        seed=0,
        tell=quiet,
        report=report,
    )
    assert outcome is not None
    return outcome


def test_no_gold_map_is_trained_on_and_no_lot_is_on_both_sides() -> None:
    base, reviews = read(BASE), read(REVIEWS)
    classes = prepare(base, 0, quiet).classes
    parts = split(base, reviews, classes, champion_seed=0)
    trained, calibrated = parts.material.side(held_out=False), parts.material.side(held_out=True)
    sides = [set(side.digests()) for side in (trained, calibrated, parts.gold)]
    lots = [set(side.groups.tolist()) for side in (trained, calibrated, parts.gold)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not sides[first] & sides[second]
        assert not lots[first] & lots[second]
    assert sum(map(len, sides)) == len(set(base.digests()) | set(reviews.digests()))
    champion_trained_on = set(prepare(base, 0, quiet).side(held_out=False).digests())
    assert not champion_trained_on & sides[2]


def test_no_map_that_was_trained_on_becomes_gold_when_more_reviews_come() -> None:
    base, many = read(BASE), read("synthetic:450:77")
    some = many.subset(np.arange(200))
    classes = prepare(base, 0, quiet).classes
    before, after = (split(base, reviews, classes, champion_seed=0) for reviews in (some, many))
    trained = set(before.material.side(held_out=False).digests())
    assert not trained & set(after.gold.digests())
    assert not trained & set(after.material.side(held_out=True).digests())
    assert len(after.gold) > len(before.gold)


def test_the_champion_is_asked_about_the_base_and_of_reviews_the_label_alone_counts() -> None:
    base, reviews = read(BASE), read(REVIEWS)
    material = split(base, reviews, prepare(base, 0, quiet).classes, champion_seed=0).material
    assert material.taught is not None
    reviewed = set(reviews.digests()) - set(base.digests())
    for digest, taught in zip(material.data.digests(), material.taught.tolist(), strict=True):
        assert taught == (digest not in reviewed)


def test_a_small_gold_set_publishes_a_version_that_waits_for_a_person(
    champion: Path, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(_KilledError):
        run(champion, store, die_after=2)
    assert store.names() == [], "a killed run leaves no half version"

    epochs: list[int] = []
    outcome = run(champion, store, epochs=epochs)
    assert epochs == [2], "a killed run is taken up where it was"
    assert outcome.published
    assert not outcome.verdict.decided
    assert outcome.verdict.reasons[0].startswith("the gold set is too small to decide")
    assert outcome.location == f"{store}/versions/{outcome.version}"
    assert outcome.learned > 0
    folder = store.fetch(outcome.version, tmp_path / "fetched")
    card = read_card(folder)
    verify(folder, card)
    assert card.notice == "Keep this."
    assert card.description == (
        f"Retrained from first with reviewed maps: {outcome.learned} learned, {outcome.held_out} held out."
    )
    names = {path.name for path in folder.iterdir()}
    files = {"likeness.npz", "model.onnx", "model-int8.onnx", "weights.npz", "training-maps.bin"}
    assert names == {"card.json", "wafer.mar", "report"} | files
    seen, before = (read_seen_maps(path, read_card(path)) for path in (folder, champion))
    assert seen is not None
    assert before is not None
    parts = split(read(BASE), read(REVIEWS), card.classes, 0, before)
    assert seen == before | digests_of(parts.material.side(held_out=False))
    assert not seen & digests_of(parts.gold)
    report = {path.name for path in (folder / "report").iterdir()}
    report.discard("contradicted.png")  # drawn where a label is contradicted
    assert report == {
        *("evaluation.json", "confusion.png", "risk-coverage.png", "contradicted.csv", "gate.json", "champion")
    }

    again = run(champion, store, epochs=epochs)
    assert again == outcome
    assert epochs == [2], "a finished version is not made twice"
    assert store.published(outcome.version) == card


def test_a_run_that_was_killed_before_publishing_is_not_trained_again(champion: Path, tmp_path: Path) -> None:
    first, second = open_store(str(tmp_path / "first")), open_store(str(tmp_path / "second"))
    version = run(champion, first).version
    # As a kill right after the card was written leaves it: the checkpoint is still there.
    work = second.work_folder(version)
    shutil.copytree(first.fetch(version, tmp_path), work, dirs_exist_ok=True)
    (work / CHECKPOINT).write_bytes(b"of no more use")
    epochs: list[int] = []
    assert run(champion, second, epochs=epochs).published
    assert epochs == []
    published = second.fetch(version, tmp_path)
    assert read_card(published) == read_card(first.fetch(version, tmp_path))
    assert not (published / CHECKPOINT).exists()


def words(champion: Path, store: str) -> list[str]:
    """A small retraining by command; the gate decides, and lets anything through unless more is said."""
    given = ["--store", store, "--base", BASE, "--reviews", REVIEWS, "--champion", str(champion)]
    given += ["--epochs", "1", "--maps-per-epoch", "128", "--gold-maps", "1", "--macro-f1-floor", "0", "--json"]
    return [*given, "--macro-f1-fall", "1", "--recall-fall", "1", "--recall-floor", "0", "--missed-as-none", "1"]


def test_what_the_gate_refuses_is_not_published_and_ends_with_3(
    champion: Path, tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = use_records(tmp_path, migrated_sqlite, monkeypatch)
    result = CliRunner().invoke(app, [*words(champion, str(tmp_path / "store")), "--macro-f1-fall", "-1"])
    assert result.exit_code == 3, result.stderr
    said = json.loads(result.stdout)
    assert not said["published"]
    assert any("allowed is +1.0000" in reason for reason in said["verdict"]["reasons"])
    assert "the gate refuses" in result.stderr
    assert open_store(str(tmp_path / "store")).names() == []
    assert (Path(said["location"]) / "report" / "confusion.png").exists()
    with Records(database) as records:
        assert [rollout.candidate for rollout in records.rollouts()] == [None]


def test_without_a_review_there_is_nothing_to_retrain_on(
    champion: Path, tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_records(tmp_path, migrated_sqlite, monkeypatch)
    result = CliRunner().invoke(app, [*words(champion, str(tmp_path / "store")), "--reviews", "records"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "there is nothing to retrain on" in result.stderr
    assert open_store(str(tmp_path / "store")).names() == []


def test_maps_that_cannot_be_used_end_with_4_and_what_is_away_with_1(
    champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FABWAFER_DATABASE_URL", raising=False)
    own = read("synthetic:9")
    write_npz(tmp_path / "own.npz", Dataset("own", own.grids, np.array(["Swirl"] * 9), own.groups))
    given = words(champion, str(tmp_path / "store"))
    strange = CliRunner().invoke(app, [*given, "--reviews", str(tmp_path / "own.npz")])
    assert (strange.exit_code, "maps labelled 'Swirl', no class of the champion" in strange.stderr) == (4, True)
    assert "of 0 reviewed maps none is left to learn from" in strange.stderr
    away = CliRunner().invoke(app, [*given, "--reviews", "records:postgresql+psycopg://user@127.0.0.1:1/none"])
    assert (away.exit_code, "the records: " in away.stderr) == (1, True), away.stderr
    (tmp_path / "store").write_text("no folder")
    assert CliRunner().invoke(app, given).exit_code == 1


def use_records(tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leads commands to records that name a champion and hold nothing else."""
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    url = f"sqlite:///{tmp_path / 'records.db'}"
    with Records(url) as records:
        records.set_rollout("first", author="kim")
    monkeypatch.setenv("FABWAFER_DATABASE_URL", url)
    return url


def test_what_the_gate_lets_through_is_put_on_trial_once(
    champion: Path, tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = use_records(tmp_path, migrated_sqlite, monkeypatch)
    for _ in range(2):
        result = CliRunner().invoke(app, words(champion, str(tmp_path / "store")))
        assert result.exit_code == 0, result.stderr
        version = json.loads(result.stdout)["version"]
        with Records(database) as records:
            [trial, _] = records.rollouts()
        assert (trial.champion, trial.candidate, trial.share) == ("first", version, 0.1)
        assert trial.author == "fabwafer retrain"
    assert "it was candidate or champion in the records before" in result.stderr


def test_without_records_a_version_is_only_published(
    champion: Path, tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FABWAFER_DATABASE_URL", raising=False)
    monkeypatch.setenv("FABWAFER_DATA", str(tmp_path))
    shutil.copy(migrated_sqlite, tmp_path / "records.db")  # of a system that the store is not of
    result = CliRunner().invoke(app, words(champion, str(tmp_path / "store")))
    assert result.exit_code == 0, result.stderr
    assert "to put it on trial: fabwafer model candidate retrained-" in result.stderr
    with Records(f"sqlite:///{tmp_path / 'records.db'}") as records:
        assert records.rollouts() == []


def test_a_champion_that_is_not_known_or_not_in_the_store_ends_with_1(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--store", str(tmp_path / "store"), "--base", BASE, "--reviews", REVIEWS]
    database = use_records(tmp_path, migrated_sqlite, monkeypatch)
    absent = CliRunner().invoke(app, given)
    assert (absent.exit_code, absent.stderr) == (1, f"there is no version first in {tmp_path / 'store'}\n")
    unknown = f"sqlite:///{tmp_path / 'new.db'}"
    shutil.copy(migrated_sqlite, tmp_path / "new.db")
    monkeypatch.setenv("FABWAFER_DATABASE_URL", unknown)
    result = CliRunner().invoke(app, given)
    assert (result.exit_code, "the records name no champion yet" in result.stderr) == (1, True)
    assert database != unknown


def test_the_jobs_entry_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fabwafer_training", "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "--maps-per-epoch" in done.stdout) == (0, True)


def test_going_on_with_other_classes_keeps_all_but_the_last_layer(champion: Path, tmp_path: Path) -> None:
    own = read("synthetic:120:5")
    names = np.where(np.isin(own.labels, ["Loc", "Scratch", "Edge-Loc"]), "local", "global")
    write_npz(tmp_path / "own.npz", Dataset("own", own.grids, names, own.groups))
    words = [str(tmp_path / "own.npz"), "--out", str(tmp_path / "out"), "--from", str(champion), "--epochs", "4"]
    words += ["--maps-per-epoch", "256"]
    refused = CliRunner().invoke(train_app, [*words, "--good", "fine"])
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        1,
        "--good: expected one of the classes global, local, got 'fine'",
    )
    result = CliRunner().invoke(train_app, words)
    assert result.exit_code == 0, result.stderr
    assert "no class is called none: each of global, local counts as a defect and raises alerts" in result.stderr
    card = read_card(tmp_path / "out")
    assert card.classes == ["global", "local"]
    assert card.description == "Trained on from wafer first."
    assert card.training["shape"] == asdict(Shape((8, 16), 1)) | {"widths": [8, 16]}
    assert {one.label for one in Classifier(tmp_path / "out").classify_grids(own.grids)} <= {"global", "local"}


def test_going_half_the_way_back_ends_in_the_middle_norms_included() -> None:
    torch.manual_seed(0)
    first, second = WaferNet(3, Shape((8,), 1)), WaferNet(3, Shape((8,), 1))
    second.stem(torch.rand(4, 3, 64, 64))  # moves the running means of its norm
    start, end = first.state_dict(), {name: value.clone() for name, value in second.state_dict().items()}
    interpolate_weights(second, start, 0.5)
    for name, value in second.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (start[name] + end[name]) / 2)
    assert not torch.equal(second.state_dict()["stem.1.running_mean"], end["stem.1.running_mean"])
    interpolate_weights(second, start, 1.0)
    torch.testing.assert_close(second.state_dict()["head.weight"], start["head.weight"])


def test_layers_thaw_gradual_unfreezing(champion: Path, tmp_path: Path) -> None:
    from fabwafer_training.augment import draw_many
    from fabwafer_training.job import _gradual_unfreezing
    from fabwafer_training.soft_targets import smooth_labels
    from fabwafer_training.train import train

    data = read("synthetic:36:6")
    classes = read_card(champion).classes
    start, shape = weights_to_go_on_from(champion, classes)
    inputs, _ = draw_many(data.grids, np.zeros(len(data), dtype=bool), 0)
    targets = np.array([classes.index(label) for label in data.labels.tolist()])
    settings = Settings(shape=shape, epochs=4, maps_per_epoch=64, batch=32, gradual=True)
    network = WaferNet(len(classes), shape)
    network.load_state_dict(start)
    states: list[dict[str, torch.Tensor]] = []

    def look(done: Epoch) -> None:
        states.append({name: value.clone() for name, value in network.state_dict().items()})

    soft_targets = smooth_labels(targets, len(classes), settings.smoothing)
    layers = _gradual_unfreezing(network, settings)
    train(
        network,
        inputs,
        soft_targets,
        np.ones(len(data)),
        settings=settings,
        folder=tmp_path,
        report=look,
        layers=layers,
    )
    for name, begins in (
        ("head.weight", 0),
        ("stages.1.first.weight", 1),
        ("stem.0.weight", 2),
        ("stem.1.running_mean", 2),
    ):
        changed = [not torch.equal(state[name], start[name]) for state in states]
        assert changed == [number >= begins for number in range(4)], name


def test_typos_in_reviews_are_left_out_with_the_wafers_named() -> None:
    base, reviews = read(BASE), read(REVIEWS)
    classes = prepare(base, 0, quiet).classes
    labels = reviews.labels.copy()
    labels[7], labels[8], labels[9] = "Scratchy", "Swirl", "scratch"
    names = [f"fab1/cam1/img{number}" for number in range(len(reviews))]
    found = of_known_classes(Dataset("reviewed", reviews.grids, labels, reviews.groups, names=names), classes)
    assert found.unread == (
        "left out 1 reviewed maps labelled 'Scratchy', no class of the champion (did you mean Scratch?): "
        "fab1/cam1/img7",
        "left out 1 reviewed maps labelled 'Swirl', no class of the champion: fab1/cam1/img8",
    )
    assert (len(found), found.labels[7]) == (43, "Scratch")
    assert found.names == [name for name in names if name not in ("fab1/cam1/img7", "fab1/cam1/img8")]
    split(base, found, classes, 0)


@pytest.mark.parametrize("of", ["base and reviews", "all but a lot held out"])
def test_a_class_without_a_map_to_train_on_is_refused(of: str) -> None:
    base, reviews = read(BASE), read(REVIEWS)
    classes = prepare(base, 0, quiet).classes
    base, reviews = (data.subset(np.flatnonzero(data.labels != "Donut")) for data in (base, reviews))
    if of == "all but a lot held out":
        aside = next(name for name in map(str, range(99)) if held_out_by_name(np.array([name]))[0])
        lot = read("synthetic:9:4")
        donut = lot.subset(np.flatnonzero(lot.labels == "Donut"))
        reviews = joined(reviews, Dataset("lot", donut.grids, donut.labels, np.array([f"{aside}"])))
        reviews = replace(reviews, groups=np.array([group.removeprefix("lot: ") for group in reviews.groups.tolist()]))
    with pytest.raises(DataError, match=r"no map of Donut is left to train on, .* base maps that have it: --base"):
        split(base, reviews, classes, 0)


def test_reviews_that_are_all_held_out_are_nothing_to_learn_from() -> None:
    base, reviews = read(BASE), read(REVIEWS)
    aside = next(name for name in map(str, range(99)) if held_out_by_name(np.array([name]))[0])
    reviews = replace(reviews, groups=np.full(len(reviews), aside))
    with pytest.raises(DataError, match=r"of 45 reviewed maps none is left to learn from: 45 are held out, of 1 lots"):
        split(base, reviews, prepare(base, 0, quiet).classes, 0)


def test_the_reviews_are_counted_by_what_they_are_for() -> None:
    base, many = read(BASE), read("synthetic:450:77")
    conflict = many.labels.copy()
    many = Dataset("reviewed", [*many.grids[:-1], many.grids[0]], conflict, many.groups)  # one map, two labels
    assert conflict[0] != conflict[-1]
    parts = split(base, many, prepare(base, 0, quiet).classes, 0)
    reviewed = set(many.digests())
    assert parts.learned == sum(map(reviewed.__contains__, parts.material.side(held_out=False).digests()))
    assert parts.held_out == sum(
        map(reviewed.__contains__, [*parts.material.side(held_out=True).digests(), *parts.gold.digests()])
    )
    assert parts.learned + parts.held_out == 448
    assert parts.learned > 0 < parts.held_out


def test_the_gold_set_has_no_map_that_the_champion_has_seen() -> None:
    base, reviews = read(BASE), read(REVIEWS)
    classes = prepare(base, 0, quiet).classes
    gold = split(base, reviews, classes, 0).gold
    some = digests_of(gold.subset(np.arange(5)))
    assert digests_of(split(base, reviews, classes, 0, some).gold) == digests_of(gold) - some
    with pytest.raises(DataError, match=f"the champion was trained on all {len(gold)} gold maps"):
        split(base, reviews, classes, 0, digests_of(gold))


def test_an_evaluation_says_which_maps_were_trained_on(champion: Path, tmp_path: Path) -> None:
    def figures(*words: str) -> tuple[dict[str, Any], str]:
        result = CliRunner().invoke(evaluate_app, [BASE, "--model", str(champion), "--json", *words])
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout), result.stderr

    material = prepare(read(BASE), 0, quiet)
    learned, rest = material.side(held_out=False), material.side(held_out=True)
    found, warning = figures()
    assert (found["trained_on"]["maps"], found["trained_on"]["share"]) == (len(learned), len(learned) / 270)
    honest, nothing = figures("--held-out", "0")
    assert (honest["maps"], honest["trained_on"]["maps"], nothing) == (len(rest), 0, "")
    assert found["trained_on"]["figures_of_the_others"]["macro_f1"] == honest["macro_f1"]
    assert f"the model was trained on {len(learned)} of these maps" in warning
    assert f"without them macro-F1 is {honest['macro_f1']:.4f}" in warning

    other, warning = figures("--held-out", "1")  # not the seed that it was trained with
    assert (other["trained_on"]["maps"] > 0, "so the figures are too good" in warning) == (True, True)

    table = CliRunner().invoke(evaluate_app, [BASE, "--model", str(champion)], env={"COLUMNS": "200"})
    assert "not trained on" in table.stdout
    unknown = CliRunner().invoke(evaluate_app, ["synthetic:9:3", "--model", str(make(tmp_path / "tiny"))])
    assert "which maps the model was trained on is not known" in unknown.stderr


def test_a_list_of_training_maps_that_is_not_the_cards_is_refused(champion: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(champion, folder)
    (folder / "training-maps.bin").write_bytes(b"other12!")
    with pytest.raises(ModelRefusedError, match=r"training-maps\.bin should have SHA-256"):
        verify(folder, read_card(folder))


def test_a_training_that_diverged_writes_no_model(tmp_path: Path) -> None:
    settings = Settings(shape=Shape((8, 16), 1), epochs=1, maps_per_epoch=512, rate=1e30)
    with pytest.raises(ModelRefusedError, match="expected finite weights after training"):
        train_model(
            prepare(read("synthetic:90"), 0, quiet),
            tmp_path / "out",
            settings,
            {"name": "wafer", "version": "out"},
            tell=quiet,
            report=lambda _: None,
        )
    assert not (tmp_path / "out" / "card.json").exists()


def test_maps_held_out_in_one_group_are_refused_before_training() -> None:
    data = read("synthetic:90")
    data = replace(data, groups=np.array([str(row % 5) for row in range(len(data))]))
    with pytest.raises(DataError, match="expected two groups of maps held out at least"):
        prepare(data, 0, quiet)


def test_a_champion_with_classes_of_its_own_asks_for_its_own_base(champion: Path, tmp_path: Path) -> None:
    """The default base has other classes: no KeyError, which a Job would try again."""
    own = read("synthetic:120:5")
    names = np.where(np.isin(own.labels, ["Loc", "Scratch", "Edge-Loc"]), "local", "global")
    groups = np.array([str(row // 4) for row in range(len(own))])
    write_npz(tmp_path / "own.npz", Dataset("own", own.grids, names, groups))
    settings = Settings(shape=Shape((8, 16), 1), epochs=1, maps_per_epoch=64)
    material = prepare(read(str(tmp_path / "own.npz")), 0, quiet)
    train_model(
        material,
        tmp_path / "own",
        settings,
        {"name": "own", "version": "own", "good": "global"},
        tell=quiet,
        report=lambda _: None,
    )
    card = read_card(tmp_path / "own")
    assert (card.good, card.metrics["missed_as_none"] is not None) == ("global", True)
    some = Dataset("reviews", read("synthetic:40:6").grids, np.array(["local"] * 40), groups[:40])
    write_npz(tmp_path / "reviews.npz", some)
    given = [*words(tmp_path / "own", str(tmp_path / "store")), "--reviews", str(tmp_path / "reviews.npz")]
    result = CliRunner().invoke(app, given)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "left out 30 synthetic:270 maps labelled 'Donut', no class of the champion: row 1" in result.stderr
    assert "no map of global is left to train on" in result.stderr
    result = CliRunner().invoke(app, [*given, "--base", str(tmp_path / "own.npz")])
    assert result.exit_code == 0, result.stderr
    folder = Path(json.loads(result.stdout)["location"])
    assert read_card(folder).good == "global"
    figures = json.loads((folder / "report" / "evaluation.json").read_text())
    assert (figures["model"]["good"], figures["missed_as_none"] is not None) == ("global", True)


def test_a_model_without_weights_cannot_be_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="came without weights"):
        weights_to_go_on_from(make(tmp_path), ["a", "b"])
