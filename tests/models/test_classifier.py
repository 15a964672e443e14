"""The classifier: one answer for each image, whatever its neighbours are."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from fabwafer.commands.classify import app
from fabwafer.defects import NOT_A_WAFER
from fabwafer.maps.grid import OUTSIDE, count
from fabwafer.maps.image_file import MAX_BYTES
from fabwafer.maps.scaling import scale
from fabwafer.maps.synthetic import make, sample
from fabwafer.maps.wafermap import encode
from fabwafer.models.card import Variant, read_card
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from tests.support import wm811k

RING = make(np.random.default_rng(4), "Edge-Ring", 40, 44)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(default_model())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "ring.png").write_bytes(encode(RING))
    (tmp_path / "broken.png").write_bytes(encode(RING)[:60])
    return tmp_path


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise() -> bytes:
    return png(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))


def test_a_clear_pattern_is_named(classifier: Classifier) -> None:
    (found,) = classifier.classify([encode(RING)])
    assert (found.label, found.wafer, found.error) == ("Edge-Ring", True, "")
    assert found.probability == pytest.approx(found.probabilities.max())
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert found.map == count(RING)
    assert found.heatmap is None


def test_bad_images_do_not_fail_their_neighbours_nor_change_them(classifier: Classifier) -> None:
    (alone,) = classifier.classify([encode(RING)])
    broken, first, photo, second, empty = classifier.classify(
        [encode(RING)[:60], encode(RING), noise(), encode(RING), b""]
    )
    for found in (first, second):
        assert found.label == alone.label
        np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-5)
    for found in (broken, empty):
        assert (found.label, found.wafer, found.review, found.probability) == ("", False, True, 0.0)
        assert found.error
    assert (photo.label, photo.wafer, photo.review) == (NOT_A_WAFER, False, True)
    assert not photo.probabilities.any()
    assert not photo.embedding.any()
    assert photo.error


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 80),
    columns=st.integers(1, 80),
    colours=st.integers(1, 5),
    zoom=st.integers(1, 4),
    smooth=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_picture_gets_an_answer_that_says_why_there_is_no_class(
    classifier: Classifier, rows: int, columns: int, colours: int, zoom: int, smooth: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (colours, 3), dtype=np.uint8)
    image = Image.fromarray(palette[random.integers(0, colours, (rows, columns))])
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    found, ring = classifier.classify([png(np.asarray(image.resize((columns * zoom, rows * zoom), how))), encode(RING)])
    assert ring.label == "Edge-Ring"
    assert not found.error.startswith("could not be read"), found.error
    assert found.wafer == (found.map is not None) == (not found.error)


def test_many_maps_of_all_sizes_come_back_in_their_order(classifier: Classifier) -> None:
    grids = [grid for _, grid in sample(7, 150)]
    together = classifier.classify_grids(grids)
    assert [found.map for found in together] == [count(grid) for grid in grids]
    for row in (0, 63, 64, 149):
        (alone,) = classifier.classify_grids([grids[row]])
        assert alone.label == together[row].label


def test_no_images_give_no_answers(classifier: Classifier) -> None:
    assert classifier.classify([]) == []


@pytest.mark.parametrize("variant", ["int8", "float32"])
def test_the_activation_maps_add_up_to_the_logits(variant: Variant) -> None:
    """A class's logit is its bias plus the mean of its map: the bias found on one map must explain all others."""
    directory = default_model()
    session = onnxruntime.InferenceSession(directory / read_card(directory).files[variant].name)
    inputs = np.stack([scale(grid) for _, grid in sample(3, 18)])
    logits, _, activations = session.run(["logits", "embedding", "activations"], {session.get_inputs()[0].name: inputs})
    bias = logits - activations.mean(axis=(2, 3))
    np.testing.assert_allclose(bias, np.broadcast_to(bias[0], bias.shape), atol=1e-3)


def test_the_heatmap_lies_over_the_dies_and_nowhere_else(classifier: Classifier) -> None:
    edge = np.zeros((60, 60), dtype=np.uint8)
    edge[5:45, 10:54] = RING
    bare, framed = classifier.classify_grids([RING, edge], heatmap=True)
    assert bare.heatmap is not None
    assert framed.heatmap is not None
    assert bare.heatmap.shape == RING.shape
    assert not bare.heatmap[RING == OUTSIDE].any()
    np.testing.assert_allclose(framed.heatmap[5:45, 10:54], bare.heatmap, atol=1e-6)
    assert np.count_nonzero(framed.heatmap) == np.count_nonzero(bare.heatmap)


def test_a_prediction_below_its_threshold_goes_to_review(classifier: Classifier) -> None:
    found = classifier.classify_grids([grid for _, grid in sample(5, 90)])
    assert {one.review for one in found} == {True, False}
    assert all(one.review == (one.probability < classifier.card.thresholds[one.label]) for one in found)


def test_int8_and_float32_agree() -> None:
    grids = [grid for _, grid in sample(11, 180)]
    int8 = Classifier(default_model(), "int8").classify_grids(grids)
    float32 = Classifier(default_model(), "float32").classify_grids(grids)
    same = [a.label == b.label for a, b in zip(int8, float32, strict=True)]
    assert np.mean(same) >= 0.98


def test_synthetic_maps_are_mostly_named_right(classifier: Classifier) -> None:
    maps = sample(2, 270)
    found = classifier.classify_grids([grid for _, grid in maps])
    right = [one.label == label for (label, _), one in zip(maps, found, strict=True)]
    assert np.mean(right) >= 0.85


def test_real_maps_are_named_right_with_classes_in_equal_parts(classifier: Classifier) -> None:
    labels = wm811k.labels()
    random = np.random.default_rng(0)
    rows = np.concatenate(
        [random.choice(np.flatnonzero(labels == name), 40, replace=False) for name in np.unique(labels)]
    )
    found = classifier.classify_grids(wm811k.maps(rows))
    right = np.array([one.label == labels[row] for row, one in zip(rows, found, strict=True)])
    assert right.mean() >= 0.85


def test_the_command_prints_one_object_for_each_image_and_ends_with_1_for_a_broken_one(pictures: Path) -> None:
    result = CliRunner().invoke(
        app, ["--json", *(str(pictures / name) for name in ("broken.png", "ring.png", "no.png"))]
    )
    broken, ring, missing = (json.loads(line) for line in result.stdout.splitlines())
    assert result.exit_code == 1
    assert ring["label"] == "Edge-Ring"
    assert ring["error"] == ""
    assert list(ring["probabilities"]) == read_card(default_model()).classes
    assert ring["map"]["rows"] == 40
    assert broken["label"] == missing["label"] == ""
    assert broken["map"] is None
    assert "No such file" in missing["error"]


def test_the_command_shows_people_a_table_and_draws_heatmaps(pictures: Path) -> None:
    result = CliRunner().invoke(app, [str(pictures / "ring.png"), "--heatmap", str(pictures / "maps")])
    assert result.exit_code == 0
    assert "Edge-Ring" in result.stdout
    assert [path.name for path in (pictures / "maps").iterdir()] == ["ring-heatmap.png"]


def test_pictures_of_images_of_the_same_name_do_not_overwrite_each_other(pictures: Path) -> None:
    (pictures / "other").mkdir()
    (pictures / "other" / "ring.png").write_bytes(encode(RING[::-1]))
    images = [str(pictures / "ring.png"), str(pictures / "other" / "ring.png")]
    for _ in ("once", "and again"):
        assert CliRunner().invoke(app, [*images, "--heatmap", str(pictures / "maps")]).exit_code == 0
    names = sorted(path.name for path in (pictures / "maps").iterdir())
    assert names == ["1-ring-heatmap.png", "2-ring-heatmap.png"]


def test_the_command_takes_folders_and_all_pictures_below_them(pictures: Path) -> None:
    (pictures / "b").mkdir()
    for name in ("other.JPG", "ring.png", ".hidden.png"):
        (pictures / "b" / name).write_bytes(encode(RING[::-1]))
    (pictures / "b" / "notes.txt").write_text("no picture")
    (pictures / "broken.png").unlink()
    (pictures / "empty").mkdir()

    result = CliRunner().invoke(app, ["--json", str(pictures), str(pictures / "empty"), str(pictures / "ring.png")])

    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["image"] for one in found] == [
        str(pictures / "b" / "other.JPG"),
        str(pictures / "b" / "ring.png"),
        str(pictures / "ring.png"),
        str(pictures / "ring.png"),
    ]
    assert {one["label"] for one in found} == {"Edge-Ring"}
    assert result.exit_code == 1
    assert result.stderr.strip() == f"{pictures / 'empty'}: no .png, .jpg or .jpeg file in it"
    table = CliRunner().invoke(app, [str(pictures)], env={"COLUMNS": "300"}).stdout
    assert str(Path("b", "ring.png")) in table


def test_the_command_reads_one_image_from_stdin(pictures: Path) -> None:
    words = ["--json", "-", "--heatmap", str(pictures / "maps")]
    result = CliRunner().invoke(app, words, input=encode(RING))
    [found] = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, found["image"], found["label"]) == (0, "-", "Edge-Ring")
    assert [path.name for path in (pictures / "maps").iterdir()] == ["stdin-heatmap.png"]

    nothing = CliRunner().invoke(app, ["--json", "-"], input=b"")
    assert "got no bytes at all" in json.loads(nothing.stdout)["error"]
    endless = CliRunner().invoke(app, ["--json", "-"], input=b"x" * (MAX_BYTES + 10))
    assert json.loads(endless.stdout)["error"].startswith(f"expected an image of at most {MAX_BYTES} bytes")


def test_the_command_refuses_a_folder_without_a_model(pictures: Path) -> None:
    result = CliRunner().invoke(app, [str(pictures / "ring.png"), "--model", str(pictures)])
    assert result.exit_code == 2
    assert "expected a model card" in result.stderr


def test_classifying_needs_no_torch(pictures: Path) -> None:
    code = (
        "import sys; from fabwafer.commands.classify import app; "
        "app(sys.argv[1:], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(pictures / "ring.png")], check=True, timeout=120)
