"""A model is loaded only when it is the one its card describes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fabwafer.defects import SHIPPED_CLASSES, canonical_name
from fabwafer.maps.synthetic import sample
from fabwafer.models.card import CARD_NAME, ModelCard, ModelRefusedError, read_card, verify, write_card
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from tests.support.tiny_models import make


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make(tmp_path / "model")


def change(model: Path, **changes: object) -> None:
    path = model / CARD_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_card_comes_back_as_it_was_written(model: Path) -> None:
    card = read_card(model)
    write_card(model, card)
    assert read_card(model) == card
    assert read_card(model).digest == card.digest


def test_the_digest_changes_with_anything_the_card_says(model: Path) -> None:
    before = read_card(model).digest
    change(model, temperature=1.5)
    assert read_card(model).digest != before


def test_a_changed_model_file_is_refused_and_both_digests_are_named(model: Path) -> None:
    card = read_card(model)
    file = model / card.files["int8"].name
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ModelRefusedError, match=card.files["int8"].sha256):
        verify(model, card)
    with pytest.raises(ModelRefusedError, match="should have SHA-256"):
        Classifier(model)


def test_a_model_without_finite_answers_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"must not serve: expected finite logits of its int8 file for the 11"):
        Classifier(make(tmp_path, finite=False))


@pytest.mark.parametrize(
    "changes", [{"temperature": math.inf}, {"thresholds": dict.fromkeys(SHIPPED_CLASSES, math.nan)}]
)
def test_a_card_with_numbers_that_are_not_finite_is_refused(model: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        ModelCard.model_validate(read_card(model).model_dump() | changes)


@pytest.mark.parametrize(
    ("names", "good", "defects"),
    [
        (["edge", "streak", "ok"], "ok", ["edge", "streak"]),
        (["edge", "streak", "ok"], None, ["edge", "streak", "ok"]),
        (["Loc", "None"], None, ["Loc"]),
        (["Near-Full", "NONE"], None, ["Near-full"]),
    ],
)
def test_a_models_answers_say_whether_they_name_a_defect(
    tmp_path: Path, names: list[str], good: str | None, defects: list[str]
) -> None:
    classifier = Classifier(make(tmp_path, names=names, good=good))
    assert classifier.card.classes == [canonical_name(name) for name in names]
    assert [name for name in classifier.card.classes if classifier.card.is_defect(name)] == defects
    answers = classifier.classify_grids([grid for _, grid in sample(3, 9)])
    assert all(answer.defect == (answer.label in defects) for answer in answers)
    assert not classifier.classify([b"no image"])[0].defect


@pytest.mark.parametrize(
    ("names", "good"), [(["edge", "ok"], "fine"), (["edge", "ok", "none"], "ok"), (["edge", "Edge"], None)]
)
def test_a_card_whose_classes_do_not_fit_together_is_refused(
    tmp_path: Path, names: list[str], good: str | None
) -> None:
    with pytest.raises(ValidationError, match=r"good must be one of the classes|classes must differ"):
        make(tmp_path, names=names, good=good)


def test_a_missing_model_file_is_refused(model: Path) -> None:
    card = read_card(model)
    (model / card.files["int8"].name).unlink()
    with pytest.raises(ModelRefusedError, match="could not read it"):
        verify(model, card)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"expected a model card at .*card\.json"):
        read_card(tmp_path)


def test_an_unknown_scaling_version_is_refused(model: Path) -> None:
    change(model, input={"size": 64, "channels": 3, "scaling_version": 999})
    with pytest.raises(ModelRefusedError, match="scaled by version 999"):
        read_card(model)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"temperature": 0}, "temperature"),
        ({"thresholds": {"Center": 0.5}}, "thresholds must name exactly the classes"),
        ({"classes": ["a", "a"]}, "classes must differ"),
        ({"colour": "green"}, "colour"),
        ({"files": {"int8": {"name": "../elsewhere.onnx", "sha256": "0" * 64}}}, "files.int8.name"),
    ],
)
def test_a_card_with_a_mistake_is_refused_with_the_place(
    model: Path, changes: dict[str, object], complaint: str
) -> None:
    change(model, **changes)
    with pytest.raises(ModelRefusedError, match=complaint):
        read_card(model)


def test_a_file_that_is_no_model_is_refused_without_a_traceback_of_the_runtime(model: Path) -> None:
    from fabwafer.models.card import describe_file

    card = read_card(model)
    file = model / card.files["int8"].name
    file.write_bytes(b"not a model")
    write_card(model, card.model_copy(update={"files": {"int8": describe_file(file)}}))
    with pytest.raises(ModelRefusedError, match="cannot load"):
        Classifier(model)


def test_a_model_without_the_wanted_variant_is_refused(model: Path) -> None:
    card = read_card(model)
    write_card(model, card.model_copy(update={"files": {"int8": card.files["int8"]}}))
    with pytest.raises(ModelRefusedError, match="has no float32 file"):
        Classifier(model, "float32")


def test_the_shipped_model_is_complete_and_names_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABWAFER_MODEL", raising=False)
    card = read_card(default_model())
    verify(default_model(), card)
    assert "Roger Jang" in card.notice
    assert len(card.citations) == 2
    assert (default_model() / card.files["int8"].name).stat().st_size < 3_000_000


def test_the_environment_names_another_default_model(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("FABWAFER_MODEL", str(model))
    assert default_model() == model
