"""Labels that a model contradicts are named with their maps, the surest first, and drawn."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from fabwafer_training.commands.evaluate import app
from fabwafer_training.contradictions import Contradiction, contradictions, write_contradictions
from fabwafer_training.dataset import Dataset, joined
from fabwafer_training.readers import read
from fabwafer_training.readers.folder import write_folder

CLASSES = ["Center", "none"]


def five() -> Dataset:
    grids = [np.full((4 + row, 5), 1, dtype=np.uint8) for row in range(5)]
    labels = np.array(["Center", "none", "none", "Center", "none"])
    return Dataset("five", grids, labels, np.array(["a", "a", "b", "b", "c"]), names=[f"w{row}" for row in range(5)])


def test_the_surest_come_first_and_what_agrees_is_left_out() -> None:
    center = np.array([0.9, 0.7, 0.2, 0.05, 0.99], dtype=np.float32)
    data = five()
    targets = np.array([CLASSES.index(label) for label in data.labels])
    found = contradictions(np.stack([center, 1 - center], axis=1), targets, data, CLASSES)
    assert found == [
        Contradiction(4, "w4", "c", "none", "Center", 0.99),
        Contradiction(3, "w3", "b", "Center", "none", 0.95),
        Contradiction(1, "w1", "a", "none", "Center", 0.7),
    ]


def test_names_stay_with_their_maps() -> None:
    assert five().subset(np.array([3, 1])).names == ["w3", "w1"]
    assert joined(five(), read("synthetic:9")).names[4:6] == ["five: w4", "synthetic:9: row 0"]


def test_where_nothing_is_contradicted_the_table_is_empty_and_nothing_is_drawn(tmp_path: Path) -> None:
    write_contradictions([], five(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["contradicted.csv"]
    assert (tmp_path / "contradicted.csv").read_text() == "map,group,label,predicted,probability\n"


def test_a_label_that_was_changed_is_found_by_its_file_and_drawn(tmp_path: Path) -> None:
    data = read("synthetic:90")
    labels = data.labels.copy()
    wrong = int(np.flatnonzero(labels == "Edge-Ring")[0])
    labels[wrong] = "Center"
    write_folder(tmp_path / "maps", Dataset("maps", data.grids, labels, data.groups))
    result = CliRunner().invoke(app, [str(tmp_path / "maps"), "--out", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "report" / "contradicted.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)} labels are contradicted" in result.output
    (found,) = [row for row in rows if row["map"] == f"train/Center/{wrong:06d}.png"]
    assert (found["label"], found["predicted"]) == ("Center", "Edge-Ring")
    assert float(found["probability"]) > 0.9
    sure = [float(row["probability"]) for row in rows]
    assert sure == sorted(sure, reverse=True)
    with Image.open(tmp_path / "report" / "contradicted.png") as picture:
        assert min(picture.size) > 100
