"""The archive: what is in it, and which folders get none."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fabwafer.models.archive import build
from fabwafer.models.card import ModelRefusedError, read_card
from fabwafer.models.classifier import Classifier
from tests.support import tiny_models


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", "archive", *arguments], capture_output=True, text=True, check=False
    )


def test_an_archive_holds_the_model_its_card_and_the_handlers_name(tiny_model: Path, tmp_path: Path) -> None:
    built = build(tiny_model, tmp_path / "out" / "wafer.mar")
    with zipfile.ZipFile(built.path) as archive:
        archive.extractall(tmp_path / "unpacked")
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert manifest["model"]["modelName"] == "wafer"
    assert manifest["model"]["modelVersion"] == built.version == "tiny-1"
    assert importlib.util.find_spec(manifest["model"]["handler"]) is not None
    assert (tmp_path / "unpacked" / manifest["model"]["configFile"]).is_file()
    assert Classifier(tmp_path / "unpacked").card.digest == built.digest == read_card(tiny_model).digest


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    archives = [build(tiny_models.make(tmp_path / name), tmp_path / f"{name}.mar").path for name in ("a", "b")]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    other = build(tiny_models.make(tmp_path / "c", seed=1), tmp_path / "c.mar").path
    assert other.read_bytes() != archives[0].read_bytes()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="expected a model card"):
        build(tmp_path, tmp_path / "out" / "wafer.mar")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_model_that_is_not_the_cards_gets_no_archive(harm: str, tmp_path: Path) -> None:
    model = tiny_models.make(tmp_path / "model")
    (model / "tiny.onnx").write_bytes(b"x") if harm == "changed" else (model / "tiny.onnx").unlink()
    with pytest.raises(ModelRefusedError):
        build(model, tmp_path / "out" / "wafer.mar")
    assert not list(tmp_path.rglob("*.mar*"))


def test_the_command_prints_one_json_object(tiny_model: Path, tmp_path: Path) -> None:
    done = command("--model", str(tiny_model), "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["path"] == str(tmp_path / "wafer.mar")
    assert printed["digest"] == read_card(tiny_model).digest
    assert Path(printed["path"]).is_file()


def test_the_command_archives_the_shipped_model_where_it_stands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fabwafer.cli", "archive"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert zipfile.is_zipfile(tmp_path / "wafer.mar")


def test_the_command_refuses_a_wrong_folder_with_one_sentence(tmp_path: Path) -> None:
    done = command("--model", str(tmp_path), "--out", str(tmp_path))
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("expected a model card at ")
    assert done.stderr.count("\n") == 1


def test_the_command_refuses_a_file_in_the_place_of_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command("--model", str(tiny_model), "--out", str(tmp_path / "file"))
    assert done.returncode != 0
    assert done.stderr.startswith("could not write the archive into")
    assert "Traceback" not in done.stderr
