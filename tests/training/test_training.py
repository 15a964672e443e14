"""Training: honest splits, the same result for the same seed, and a card that says what was measured."""

import itertools
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference
from typer.testing import CliRunner

from fabwafer.defects import SHIPPED_CLASSES
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED
from fabwafer.maps.scaling import scale
from fabwafer.maps.synthetic import make, sample
from fabwafer.models.card import ModelRefusedError, read_card, verify
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from fabwafer_training import calibrate
from fabwafer_training.augment import DRAWINGS, as_inputs, draw_all, draw_many, resampled, turn
from fabwafer_training.commands.evaluate import app as evaluate_app
from fabwafer_training.commands.train import app as train_app
from fabwafer_training.dataset import Dataset
from fabwafer_training.epochs import Draws, add_mixed_weights, even_weights
from fabwafer_training.metrics import alert_threshold, measure, natural_weights, risk_coverage
from fabwafer_training.mixing import mix
from fabwafer_training.network import Exported, Shape, WaferNet
from fabwafer_training.readers import read
from fabwafer_training.readers.npz import write_npz
from fabwafer_training.report import evaluate
from fabwafer_training.soft_targets import ask_teachers, distil, smooth_labels, with_patterns
from fabwafer_training.splits import clean, grouped_folds, held_out_from_training
from fabwafer_training.train import Epoch, Settings, loss_of, precision, train
from tests.support import wm811k

TINY = Settings(shape=Shape((8, 16), 1), epochs=3, maps_per_epoch=96, batch=32, seed=3)


def guesses(seed: int, maps: int = 400, classes: int = 9) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Probabilities that are right more often than not, and the true classes."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, maps)
    logits = random.normal(0, 1.5, (maps, classes)) + 4 * np.eye(classes)[targets]
    return calibrate.softmax(logits.astype(np.float32)), targets


@pytest.fixture(scope="module")
def inputs() -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    data = read("synthetic:90")
    drawn, _ = draw_many(data.grids, np.zeros(len(data), dtype=bool), seed=0)
    return drawn, np.array([SHIPPED_CLASSES.index(label) for label in data.labels.tolist()])


# Splits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_no_group_is_ever_cut(seed: int, folds: int) -> None:
    random = np.random.default_rng(seed)
    groups = np.array([f"lot{number}" for number in random.integers(0, 40, 300)])
    labels = random.choice(["a", "b", "c"], 300, p=[0.7, 0.25, 0.05])
    fold = grouped_folds(labels, groups, folds, seed)
    assert set(fold.tolist()) <= set(range(folds))
    for group in np.unique(groups):
        assert len(set(fold[groups == group].tolist())) == 1


def test_folds_spread_rare_classes_evenly() -> None:
    random = np.random.default_rng(0)
    groups = np.array([f"lot{row // 10}" for row in range(5000)])
    labels = random.choice(["common", "rare"], 5000, p=[0.98, 0.02])
    fold = grouped_folds(labels, groups, 5, 0)
    rare = [int((labels[fold == number] == "rare").sum()) for number in range(5)]
    assert max(rare) - min(rare) <= 2


def test_conflicting_maps_and_duplicates_are_left_out_and_reported() -> None:
    grids = [grid for _, grid in sample(0, 5)]
    data = Dataset(
        "five",
        [grids[0], grids[1], grids[0], grids[2], grids[1], grids[3]],
        np.array(["a", "b", "a", "c", "d", "e"]),
        np.array(["1", "2", "3", "4", "5", "6"]),
    )
    held_out, left_out = clean(data)
    assert left_out.repeated.tolist() == [2]
    assert left_out.conflicting.tolist() == [1, 4]
    assert held_out.labels.tolist() == ["a", "c", "e"]


# Measuring


def test_the_figures_are_those_of_scikit_learn() -> None:
    probabilities, targets = guesses(1)
    found, guessed = measure(probabilities, targets, SHIPPED_CLASSES), probabilities.argmax(axis=1)
    none = SHIPPED_CLASSES.index("none")
    report = reference.classification_report(targets, guessed, target_names=SHIPPED_CLASSES, output_dict=True)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(targets, guessed))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(targets, guessed, average="macro"))
    assert found["f1_weighted"] == pytest.approx(reference.f1_score(targets, guessed, average="weighted"))
    assert found["top3_accuracy"] == pytest.approx(reference.top_k_accuracy_score(targets, probabilities, k=3))
    assert found["binary_precision"] == pytest.approx(reference.precision_score(targets != none, guessed != none))
    assert found["binary_recall"] == pytest.approx(reference.recall_score(targets != none, guessed != none))
    assert found["missed_as_none"] == pytest.approx(1 - found["binary_recall"])
    assert found["confusion"] == reference.confusion_matrix(targets, guessed).tolist()
    for name, figures in found["per_class"].items():
        assert figures["precision"] == pytest.approx(report[name]["precision"])
        assert figures["recall"] == pytest.approx(report[name]["recall"])
        assert figures["support"] == report[name]["support"]


def test_reweighting_gives_none_its_natural_share() -> None:
    _, targets = guesses(2)
    weights = natural_weights(targets, SHIPPED_CLASSES)
    assert weights is not None
    assert weights[targets == SHIPPED_CLASSES.index("none")].sum() / weights.sum() == pytest.approx(0.85)
    assert natural_weights(targets[targets != 8], SHIPPED_CLASSES) is None


def test_a_class_that_does_not_occur_does_not_lower_the_macro_f1() -> None:
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 1, 0]]
    found = measure(probabilities, np.array([0, 1, 1, 0]), ["a", "b", "c"])
    assert found["macro_f1"] == 1
    assert found["missed_as_none"] is None


def test_leaving_the_unsure_to_people_lowers_the_risk_and_the_alert_threshold_keeps_its_word() -> None:
    probabilities, targets = guesses(3, maps=3000)
    curve = risk_coverage(probabilities, targets)
    assert curve[-1]["coverage"] == 1
    assert curve[4]["risk"] < curve[-1]["risk"]
    none = SHIPPED_CLASSES.index("none")
    threshold = alert_threshold(probabilities, targets, SHIPPED_CLASSES, 0.97)
    assert threshold is not None
    alerts = (probabilities.argmax(axis=1) != none) & (probabilities.max(axis=1) >= threshold)
    assert (targets[alerts] != none).mean() >= 0.97
    assert alert_threshold(probabilities, np.full(3000, none), SHIPPED_CLASSES, 0.97) is None


def test_the_temperature_that_blurred_is_found_again() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (5000, 9)).astype(np.float32)
    chances = calibrate.softmax(logits)
    targets = np.array([random.choice(9, p=row / row.sum()) for row in chances.astype(float)])
    assert calibrate.fit_temperature(logits * np.float32(1.8), targets) == pytest.approx(1.8, abs=0.1)


def test_predictions_above_the_thresholds_err_no_more_than_was_asked() -> None:
    probabilities, targets = guesses(4, maps=6000)
    half = len(targets) // 2
    thresholds = calibrate.fit_thresholds(probabilities[:half], targets[:half], SHIPPED_CLASSES, 0.05)
    guessed, sure = probabilities[half:].argmax(axis=1), probabilities[half:].max(axis=1)
    accepted = sure >= np.array([thresholds[name] for name in SHIPPED_CLASSES])[guessed]
    assert accepted.mean() > 0.5
    assert (guessed != targets[half:])[accepted].mean() <= 0.06


def test_a_class_with_too_few_maps_to_tell_is_always_reviewed() -> None:
    thresholds = calibrate.fit_thresholds(
        np.eye(2, dtype=np.float32)[[0] * 5], np.zeros(5, dtype=int), ["a", "b"], 0.05
    )
    assert thresholds == {"a": 1.0, "b": 1.0}


# Drawing and turning


def test_the_first_drawing_is_what_the_server_feeds_the_network() -> None:
    _, grid = sample(0, 4)[3]
    drawn = draw_all(grid, np.random.default_rng(0))
    assert drawn.shape == (len(DRAWINGS), 3, 64, 64)
    np.testing.assert_allclose(as_inputs(drawn)[0], scale(grid), atol=0.5 / 255 + 1e-6)
    assert (drawn[1, 2] == 255).all()
    assert (drawn[3, 2] == 255).all()


def test_a_map_is_turned_into_each_of_its_eight_positions() -> None:
    grid = np.ones((40, 40), dtype=np.uint8)
    grid[3:6, 4:15] = FAILED
    one = torch.from_numpy(scale(grid))
    how = torch.tensor(list(itertools.product([False, True], repeat=3)))
    turned = turn(one.expand(8, -1, -1, -1), how)
    wanted = [side.rot90(quarter, (-2, -1)) for side in (one, one.flip(-1)) for quarter in range(4)]
    assert {part.numpy().tobytes() for part in turned} == {part.contiguous().numpy().tobytes() for part in wanted}


@pytest.mark.parametrize("side", [20, 40, 150, 300])
def test_a_resampled_map_keeps_its_yield(side: int) -> None:
    rng = np.random.default_rng(0)
    grid = make(rng, "Near-full", 40, 36)
    other = resampled(grid, side, rng)
    assert other.shape == (side, round(36 * side / 40))
    before, after = ((one == FAILED).sum() / (one != OUTSIDE).sum() for one in (grid, other))
    assert abs(after - before) < 0.03


def test_a_resampled_map_keeps_its_pattern_but_not_half_of_its_dies() -> None:
    grid = make(np.random.default_rng(0), "none", 60, 60)
    grid[grid == FAILED] = PASSED
    grid[20:30, 30:42] = FAILED
    small = resampled(grid, 10, np.random.default_rng(1))
    assert small.shape == (30, 30)
    rows, columns = np.nonzero(small == FAILED)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 14, 15, 20)


def test_dies_that_failed_alone_stay_small_where_dies_are_smaller() -> None:
    grid = make(np.random.default_rng(0), "none", 30, 30)
    grid[grid == FAILED] = PASSED
    grid[5:25:5, 15] = FAILED
    large = resampled(grid, 300, np.random.default_rng(0))
    assert 0 < (large == FAILED).sum() < 15


# Mixed patterns


def test_mixed_maps_show_the_failed_dies_of_all_their_patterns() -> None:
    rng = np.random.default_rng(0)
    labels = ["Center", "Edge-Ring", "Scratch", "none"] * 3
    data = Dataset("test", [make(rng, label, 30, 30) for label in labels], np.array(labels), np.array(["lot"] * 12))
    mixed = mix(data, SHIPPED_CLASSES, 40, 0)
    assert len(mixed.grids) == 40
    assert set(mixed.patterns.sum(axis=1).tolist()) == {2, 3}
    named = {name for number, name in enumerate(SHIPPED_CLASSES) if mixed.patterns[:, number].any()}
    assert named == {"Center", "Edge-Ring", "Scratch"}
    for grid, shown in zip(mixed.grids, mixed.patterns.tolist(), strict=True):
        names = [name for name, one in zip(SHIPPED_CLASSES, shown, strict=True) if one]
        under = [
            label
            for single, label in zip(data.grids, labels, strict=True)
            if ((grid == FAILED) >= (single == FAILED)).all()
        ]
        assert set(under) & set(names)
    again = mix(data, SHIPPED_CLASSES, 40, 0)
    assert all((one == other).all() for one, other in zip(mixed.grids, again.grids, strict=True))


def test_patterns_that_hide_each_other_are_not_mixed() -> None:
    rng = np.random.default_rng(0)
    labels = ["Center", "Donut", "Edge-Loc", "Edge-Ring"] * 2
    data = Dataset("test", [make(rng, label, 30, 30) for label in labels], np.array(labels), np.array(["lot"] * 8))
    shown = mix(data, SHIPPED_CLASSES, 60, 0).patterns
    for pair in (("Center", "Donut"), ("Edge-Loc", "Edge-Ring")):
        assert not shown[:, [SHIPPED_CLASSES.index(name) for name in pair]].all(axis=1).any()


def test_maps_without_a_common_die_grid_are_not_mixed() -> None:
    rng = np.random.default_rng(0)
    grids = [make(rng, "Center", 30, 30), make(rng, "Scratch", 31, 30)]
    mixed = mix(Dataset("test", grids, np.array(["Center", "Scratch"]), np.array(["a", "b"])), SHIPPED_CLASSES, 5, 0)
    assert mixed.grids == []
    assert mixed.patterns.shape == (0, 9)


def test_a_mixed_map_teaches_its_patterns_and_no_one_class() -> None:
    torch.manual_seed(0)
    network = WaferNet(4, Shape((8, 16, 16), 1, excitation=True, pyramid=True, patterns=True)).eval()
    maps = torch.rand(2, 3, 64, 64)
    taught = np.array([[0.1, 0.9, 0, 0]], dtype=np.float32)  # a teacher says otherwise; the pattern is the label's
    targets = with_patterns(taught, np.array([0]), np.array([[False, True, True, False]]))
    assert targets.tolist() == [pytest.approx([0.1, 0.9, 0, 0, 1, 0, 0, 0]), [0, 0, 0, 0, 0, 1, 1, 0]]
    torch.autograd.backward(loss_of(network, maps, torch.from_numpy(targets)))
    both = network.head.weight.grad
    network.zero_grad()
    torch.autograd.backward(loss_of(network, maps[:1], torch.from_numpy(targets[:1])))
    assert both is not None
    assert network.head.weight.grad is not None
    torch.testing.assert_close(both, network.head.weight.grad / 2)


def test_an_eighth_of_the_maps_drawn_are_mixed() -> None:
    weights = add_mixed_weights(np.array([1.0, 2.0, 4.0]), 10)
    assert weights[:3].tolist() == [1, 2, 4]
    assert weights[3:].sum() / weights.sum() == pytest.approx(0.125)
    assert add_mixed_weights(np.array([1.0, 2.0]), 0).tolist() == [1, 2]


def test_each_pattern_has_the_threshold_of_its_best_f1() -> None:
    probabilities = np.linspace(0, 1, 200, dtype=np.float32)[:, None].repeat(2, axis=1)
    shown = np.stack([probabilities[:, 0] > 0.7, np.zeros(200, dtype=bool)], axis=1)
    thresholds = calibrate.fit_pattern_thresholds(probabilities, shown)
    assert thresholds == pytest.approx([0.7, 0.5], abs=0.03)


# The network


@pytest.mark.parametrize(
    ("shape", "cells"),
    [
        (Shape((8, 16), 1), 16),
        (Shape((8, 16, 16, 16), 1), 4),
        (Shape((8, 16, 16, 16), 1, excitation=True, pyramid=True), 16),
    ],
)
def test_the_activation_maps_explain_the_logits_exactly(shape: Shape, cells: int) -> None:
    torch.manual_seed(0)
    network = WaferNet(5, shape).eval()
    maps = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        logits, embedding, activations = Exported(network)(maps)
        assert activations.shape == (4, 5, cells, cells)
        torch.testing.assert_close(logits, network(maps))
        torch.testing.assert_close(activations.mean(dim=(2, 3)) + network.head.bias, logits)
    assert embedding.shape == (4, 16)


Drawn = tuple[NDArray[np.uint8], NDArray[np.intp]]


def run(
    inputs: Drawn, folder: Path, setting: Settings, report: Callable[[Epoch], None] = lambda _: None
) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    drawn, targets = inputs
    torch.manual_seed(setting.seed)
    network = WaferNet(9, setting.shape)
    soft_targets, weights = smooth_labels(targets, 9, setting.smoothing), even_weights(targets, setting.evenness)
    train(network, drawn, soft_targets, weights, settings=setting, folder=folder, report=report)
    return network.state_dict()


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


class _KilledError(Exception):
    pass


def test_bfloat16_is_for_processors_that_have_it() -> None:
    if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists():
        pytest.skip("what a processor has is read from Linux on x86-64")
    flags = set(Path("/proc/cpuinfo").read_text().split())
    fast = {"avx512vl", "avx512bw", "avx512dq"} <= flags or "avx_ne_convert" in flags
    assert precision(gpu=False) == ("bf16-mixed" if fast else "32-true")


def test_a_run_that_was_killed_goes_on_and_ends_as_if_nothing_had_happened(inputs: Drawn, tmp_path: Path) -> None:
    whole = run(inputs, tmp_path / "whole", TINY)
    epochs: list[int] = []

    def kill_in_the_third(done: Epoch) -> None:
        epochs.append(done.number)
        if done.number == 3:
            raise _KilledError

    with pytest.raises(_KilledError):
        run(inputs, tmp_path / "killed", TINY, kill_in_the_third)
    resumed = run(inputs, tmp_path / "killed", TINY, lambda done: epochs.append(done.number))
    assert epochs == [1, 2, 3, 3]
    assert_same(whole, resumed)


def test_other_settings_or_labels_start_anew_and_another_seed_gives_another_network(
    inputs: Drawn, tmp_path: Path
) -> None:
    short = replace(TINY, epochs=1)
    first = run(inputs, tmp_path, short)
    other = run(inputs, tmp_path, replace(short, seed=4))
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert_same(first, run(inputs, tmp_path / "again", short))
    relabelled = inputs[0], inputs[1][::-1].copy()
    epochs: list[Epoch] = []
    run(relabelled, tmp_path / "again", short, epochs.append)
    assert len(epochs) == 1, "a finished run of other labels is not gone on from"


def test_each_of_several_processes_sees_its_own_part_of_the_same_round() -> None:
    weights = even_weights(np.repeat([0, 1], [90, 10]), 1.0)
    whole = list(Draws(weights, 1001, seed=5, rank=0, world=1))
    parts = [Draws(weights, 1001, seed=5, rank=rank, world=2) for rank in (0, 1)]
    assert [len(part) for part in parts] == [501, 500]
    assert list(parts[0]) == whole[::2]
    assert list(parts[1]) == whole[1::2]
    rare = sum(row >= 90 for row, _ in whole)
    assert 400 < rare < 600, "drawn evenly, a class of a tenth of the maps is half of those drawn"
    parts[0].set_epoch(1)
    assert list(parts[0]) != whole[::2]


# Teachers


def test_the_label_is_heard_beside_the_teachers_and_alone_where_they_are_not_asked() -> None:
    labels = smooth_labels(np.array([0, 1]), 4, smoothing=0.04)
    np.testing.assert_allclose(labels, [[0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01]], atol=1e-6)
    said = np.full((2, 4), 0.25, dtype=np.float32)
    mixed = distil(labels, said, np.array([True, False]))
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed[0, 0], 0.3 * 0.97 + 0.7 * 0.25, atol=1e-6)
    np.testing.assert_array_equal(mixed[1], labels[1])


def test_teachers_are_heard_alike(trained: Path, inputs: Drawn) -> None:
    maps = inputs[0][:12, 0]
    first, second, both = (
        ask_teachers(teachers, SHIPPED_CLASSES, maps, lambda _: None)
        for teachers in ([trained], [default_model()], [trained, default_model()])
    )
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)
    np.testing.assert_allclose(both.sum(axis=1), 1, atol=1e-5)


def test_a_teacher_with_other_classes_is_refused(trained: Path, inputs: Drawn) -> None:
    with pytest.raises(ModelRefusedError, match="the maps are labelled a, b"):
        ask_teachers([trained], ["a", "b"], inputs[0][:, 0], lambda _: None)


def test_a_model_learns_from_a_teacher_by_command(trained: Path, tmp_path: Path) -> None:
    words = ["synthetic:120", "--out", str(tmp_path / "pupil"), "--epochs", "1", "--maps-per-epoch", "64"]
    result = CliRunner().invoke(train_app, [*words, "--widths", "8,16", "--blocks", "1", "--teacher", str(trained)])
    assert result.exit_code == 0, result.stderr
    assert read_card(tmp_path / "pupil").training["teachers"] == ["wafer test-1"]


def test_a_model_that_goes_on_from_another_carries_its_terms(trained: Path, tmp_path: Path) -> None:
    words = ["synthetic:120", "--out", str(tmp_path / "own"), "--epochs", "1", "--maps-per-epoch", "64"]
    result = CliRunner().invoke(train_app, [*words, "--from", str(trained)])
    assert result.exit_code == 0, result.stderr
    card = read_card(tmp_path / "own")
    assert (card.notice, card.description) == ("None.", "Trained on from wafer test-1.")


# From maps to a model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "wafer"
    about = out.parent / "about.json"
    about.write_text(json.dumps({"description": "A test.", "notice": "None."}))
    words = ["synthetic:360", "--out", str(out), "--epochs", "14", "--maps-per-epoch", "1024", "--widths", "8,16"]
    result = CliRunner().invoke(train_app, [*words, "--blocks", "1", "--version", "test-1", "--card", str(about)])
    assert result.exit_code == 0, result.stderr
    assert "epoch 14 of 14" in result.stderr
    return out


def test_training_by_command_leaves_a_complete_model_and_nothing_else(trained: Path) -> None:
    card = read_card(trained)
    verify(trained, card)
    assert {path.name for path in trained.iterdir()} == {
        "card.json",
        "likeness.npz",
        "model.onnx",
        "model-int8.onnx",
        "weights.npz",
        "training-maps.bin",
    }
    assert (card.version, card.description, card.classes) == ("test-1", "A test.", list(SHIPPED_CLASSES))
    assert sum(card.training_data.counts.values()) + card.metrics["maps"] == 360
    assert card.metrics["macro_f1"] > 0.3, "nine classes by chance would be a ninth"
    assert card.metrics["float32"]["macro_f1"] == pytest.approx(card.metrics["macro_f1"], abs=0.05)


@pytest.mark.parametrize("shipped", [False, True])
def test_weights_leave_a_bit_free_so_that_no_processor_saturates(trained: Path, shipped: bool) -> None:
    folder = default_model() if shipped else trained
    model = onnx.load(folder / read_card(folder).files["int8"].name)
    weights = [
        onnx.numpy_helper.to_array(one) for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8
    ]
    assert weights
    assert max(int(np.abs(one.astype(int)).max()) for one in weights) <= 64


@pytest.mark.parametrize("more", [["--widths", "8,16", "--blocks", "1"], ["--from", "{}"]])
def test_two_processes_train_one_model_together(trained: Path, tmp_path: Path, more: list[str]) -> None:
    torchrun, fabwafer = (str(Path(sys.executable).parent / name) for name in ("torchrun", "fabwafer"))
    words = ["train", "synthetic:180", "--epochs", "4", "--maps-per-epoch", "512"]
    words += [word.replace("{}", str(trained)) for word in more]
    alone, together = tmp_path / "alone", tmp_path / "together"
    losses = []
    for start, out in (
        ([], alone),
        ([torchrun, "--standalone", "--nproc-per-node", "2", "--no-python"], together),
    ):
        done = subprocess.run(
            [*start, fabwafer, *words, "--out", str(out)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        losses.append([float(loss) for loss in re.findall(r"epoch \d of 4: loss ([0-9.]+)", done.stderr)])
    assert len(losses[0]) == len(losses[1]) == 4, "one of the two processes speaks"
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert read_card(together).training == read_card(alone).training | {
        "threads": read_card(together).training["threads"]
    }


def test_what_the_card_says_can_be_measured_again(trained: Path) -> None:
    result = CliRunner().invoke(evaluate_app, ["synthetic:360", "--model", str(trained), "--held-out", "0", "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    card = read_card(trained)
    assert found["maps"] == card.metrics["maps"]
    # The card's figures are cross-fitted over two halves, these are of the final fit on both.
    assert found["accuracy"] == pytest.approx(card.metrics["accuracy"], abs=0.15)
    assert found["model"]["digest"] == card.digest


KEYS = {
    *("accuracy", "f1_weighted", "macro_f1", "binary_accuracy", "binary_precision", "binary_recall"),
    *("worst_class_recall", "top3_accuracy", "ece", "missed_as_none", "per_class", "confusion"),
}


def test_evaluating_prints_json_with_its_keys_and_writes_a_report(tmp_path: Path) -> None:
    words = ["synthetic:180", "--json", "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(evaluate_app, words)
    found = json.loads(result.stdout)
    assert set(found) >= KEYS
    assert set(found["per_class"]["none"]) == {"precision", "recall", "f1", "support"}
    assert found["accuracy"] >= 0.8
    written = {path.name for path in (tmp_path / "report").iterdir()}
    written.discard("contradicted.png")  # drawn where a label is contradicted
    assert written == {"evaluation.json", "confusion.png", "risk-coverage.png", "contradicted.csv"}
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == found


def test_maps_of_classes_that_the_model_does_not_know_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    data = read("synthetic:90")
    labels = data.labels.astype("<U32")
    labels[labels == "Donut"] = "Swirl"
    write_npz(tmp_path / "own.npz", replace(data, labels=labels))
    words = [str(tmp_path / "own.npz"), "--json", "--out", str(tmp_path / "report")]

    refused = CliRunner().invoke(evaluate_app, words)
    assert refused.exit_code == 1
    assert "label 'Swirl' is none of the model's classes" in refused.stderr
    assert "--known-classes leaves such maps out" in refused.stderr

    result = CliRunner().invoke(evaluate_app, [*words, "--known-classes"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["maps"], found["left_out"]) == (0, 80, {"Swirl": 10})
    assert "left out 10 own maps labelled 'Swirl', no class of the model" in result.stderr
    assert found["per_class"]["Donut"]["support"] == 0
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == found

    write_npz(tmp_path / "own.npz", replace(data, labels=np.full(90, "Swirl")))
    none = CliRunner().invoke(evaluate_app, [*words, "--known-classes"])
    assert none.exit_code == 1
    assert "there are no maps to measure on" in none.stderr


def test_where_nothing_was_left_out_the_report_says_so() -> None:
    result = CliRunner().invoke(evaluate_app, ["synthetic:90", "--json", "--known-classes"])
    assert json.loads(result.stdout)["left_out"] == {}


def test_people_get_tables() -> None:
    result = CliRunner().invoke(evaluate_app, ["synthetic:90"])
    assert result.exit_code == 0
    assert "macro_f1" in result.stdout
    assert "would go to review" in result.stdout


@pytest.mark.parametrize(
    ("app", "words", "complaint"),
    [
        (evaluate_app, ["nowhere.npz"], "nowhere.npz: no such file"),
        (evaluate_app, ["synthetic:9", "--model", "nowhere"], "expected a model card"),
        (train_app, ["synthetic:9", "--out", "{}"], "at least 5 maps"),
        (train_app, ["synthetic:90", "--out", "{}", "--widths", "wide"], "wide"),
        (train_app, ["synthetic:90", "--out", "{}", "--widths", "0,8"], "expected the channels of each stage"),
        (train_app, ["synthetic:90", "--out", "{}", "--card", "{}/list.json"], "expected a JSON object, found list"),
        (train_app, ["synthetic:90", "--out", "{}", "--card", "{}/foo.json"], "found foo with 1"),
        (train_app, ["synthetic:90", "--out", "{}", "--version", "../x y"], "expected a version of letters"),
        (evaluate_app, ["records:nothing"], "the records: expected the URL of the records' database"),
        (evaluate_app, ["{}/empty.npz"], "there are no maps to measure on"),
    ],
)
def test_mistakes_are_one_sentence(app: Any, words: list[str], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "foo.json").write_text('{"foo": 1}')
    write_npz(tmp_path / "empty.npz", read("synthetic:9").subset(np.array([], dtype=np.intp)))
    result = CliRunner().invoke(app, [word.replace("{}", str(tmp_path)) for word in words])
    assert result.exit_code == 1
    assert complaint in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def test_the_shipped_model_is_as_good_as_its_card_says_on_real_maps_it_never_saw() -> None:
    data, _ = clean(read(str(wm811k.path())))
    held_out = np.flatnonzero(held_out_from_training(data, seed=0))
    random = np.random.default_rng(0)
    rows = np.concatenate(
        [
            random.choice(of_class, min(60, len(of_class)), replace=False)
            for of_class in (held_out[data.labels[held_out] == name] for name in SHIPPED_CLASSES)
        ]
    )
    classifier = Classifier(default_model())
    found = evaluate(classifier, data.subset(rows), alert_precision=0.95).figures
    assert found["mean_class_recall"] >= 0.85
    assert found["mean_class_recall"] == pytest.approx(classifier.card.metrics["mean_class_recall"], abs=0.05)
