"""Models that name several patterns on a wafer, and tell maps unlike all that they were trained on."""

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fabwafer.maps.synthetic import make, sample
from fabwafer.models.archive import build
from fabwafer.models.card import ModelRefusedError, describe_file, read_card, write_card
from fabwafer.models.classifier import Classifier
from fabwafer.models.likeness import Likeness
from fabwafer_training.commands.train import app
from fabwafer_training.readers import read
from fabwafer_training.report import evaluate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with patterns, trained for a moment on synthetic maps."""
    folder = tmp_path_factory.mktemp("patterns") / "wafer"
    words = ["synthetic:450", "--out", str(folder), "--widths", "8,16,16,16", "--blocks", "1", "--epochs", "2"]
    result = CliRunner().invoke(app, [*words, "--maps-per-epoch", "512", "--threads", "2", "--version", "p1"])
    assert result.exit_code == 0, result.output
    return folder


def test_the_card_tells_what_the_patterns_and_the_likeness_are(model: Path) -> None:
    card = read_card(model)
    assert card.patterns is not None
    assert set(card.patterns) == set(card.classes)
    assert card.unlike_distance is not None
    assert card.likeness is not None
    assert card.training["shape"]["pyramid"]
    assert set(card.metrics["patterns"]) == {"single", "mixed"}
    assert 0 <= card.metrics["patterns"]["mixed"]["macro_f1"] <= 1


def test_patterns_are_named_with_their_probabilities_and_the_good_class_is_none_of_them(model: Path) -> None:
    classifier = Classifier(model)
    classifier.card.patterns.update(dict.fromkeys(classifier.card.classes, 0.0))  # type: ignore[union-attr]
    (found,) = classifier.classify_grids([make(np.random.default_rng(0), "Center+Edge-Ring", 40, 40)])
    assert found.patterns is not None
    assert set(found.patterns) == set(classifier.card.classes) - {"none"}
    assert list(found.patterns.values()) == sorted(found.patterns.values(), reverse=True)
    assert all(0 <= probability <= 1 for probability in found.patterns.values())


def test_the_activation_maps_have_sixteen_cells_a_side(model: Path) -> None:
    session = Classifier(model)._session
    inputs = np.zeros((1, 3, 64, 64), dtype=np.float32)
    assert session.run(["activations"], {session.get_inputs()[0].name: inputs})[0].shape == (1, 9, 16, 16)


def test_what_is_unlike_all_training_maps_goes_to_review_with_the_reason(model: Path, tmp_path: Path) -> None:
    far = read_card(copied(model, tmp_path)).model_copy(update={"unlike_distance": 1e-6})
    write_card(tmp_path, far)
    grids = [grid for _, grid in sample(1, 9)]
    assert {(one.review, one.review_reason) for one in Classifier(tmp_path).classify_grids(grids)} == {(True, "unlike")}
    usual = Classifier(model).classify_grids(grids)
    assert sum(one.review_reason == "unlike" for one in usual) <= 2


def copied(model: Path, folder: Path) -> Path:
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_patterns_that_are_not_finite_are_refused(model: Path, tmp_path: Path) -> None:
    card = read_card(copied(model, tmp_path))
    path = tmp_path / card.files["int8"].name
    network = onnx.load(path)
    layer = next(node for node in network.graph.node if "patterns" in node.output)
    bias = next(value for value in network.graph.initializer if value.name == layer.input[-1])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(9, np.nan, np.float32), bias.name))
    onnx.save(network, path)
    write_card(tmp_path, card.model_copy(update={"files": card.files | {"int8": describe_file(path)}}))
    with pytest.raises(ModelRefusedError, match="expected finite patterns of its int8 file"):
        Classifier(tmp_path)


@pytest.mark.parametrize(
    ("whitening", "centres", "sentence"),
    [
        (np.full((16, 16), np.nan), np.zeros((9, 16)), "expected finite numbers"),
        (np.eye(16), np.zeros((8, 16)), r"expected 9 classes of 16 numbers"),
        (np.eye(15), np.zeros((9, 16)), r"expected a whitening of 16 x 16 numbers"),
    ],
)
def test_a_likeness_that_could_not_tell_anything_is_refused(
    model: Path, tmp_path: Path, whitening: NDArray[np.float64], centres: NDArray[np.float64], sentence: str
) -> None:
    card = read_card(copied(model, tmp_path))
    Likeness(whitening.astype(np.float32), centres.astype(np.float32)).write(tmp_path / "likeness.npz")
    write_card(tmp_path, card.model_copy(update={"likeness": describe_file(tmp_path / "likeness.npz")}))
    with pytest.raises(ModelRefusedError, match=sentence):
        Classifier(tmp_path)


def test_an_evaluation_counts_what_is_unlike_among_what_goes_to_review(model: Path, tmp_path: Path) -> None:
    card = read_card(copied(model, tmp_path))
    sure = dict.fromkeys(card.classes, 0.0)
    write_card(tmp_path, card.model_copy(update={"unlike_distance": 1e-6, "thresholds": sure}))
    data = read("synthetic:18")
    assert evaluate(Classifier(tmp_path), data, 0.95).figures["review"] == {"share": 1.0, "error_rate_of_others": 0.0}


def test_the_likeness_travels_in_the_archive_and_is_checked(model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(model, tmp_path / "wafer.mar").path) as archive:
        assert "likeness.npz" in archive.namelist()
    copied(model, tmp_path)
    (tmp_path / "likeness.npz").write_bytes(b"damaged")
    with pytest.raises(ModelRefusedError, match=r"likeness\.npz should have SHA-256"):
        Classifier(tmp_path)
