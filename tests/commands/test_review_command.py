"""`fabwafer review` stores what a person sees on a wafer."""

import json
import subprocess
import sys

from fabwafer.records import Records
from tests.support.records import predicted, shot


def run(*arguments: str, database: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": "/nonexistent", "COLUMNS": "200", "FABWAFER_DATABASE_URL": database, "USER": "lee"}
    command = [sys.executable, "-m", "fabwafer.cli", "review", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


def store(database: str, label: str = "Loc") -> None:
    with Records(database) as records:
        records.store_shots([shot(imgid="a")])
        records.store_predictions([predicted(label, 0.4, imgid="a", wafer=True, review=True)])


def test_a_review_counts_in_the_usual_spelling(database: str) -> None:
    store(database)
    done = run("fab1", "cam1", "a", "edge-loc", "--note", "at six o'clock", database=database)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "fab1/cam1/a: Edge-Loc by lee; the prediction was Loc (0.40)\n"
    with Records(database) as records:
        wafer = records.wafer("fab1", "cam1", "a")
    assert wafer is not None
    assert wafer.review is not None
    assert (wafer.review.label, wafer.review.reviewer, wafer.review.note) == ("Edge-Loc", "lee", "at six o'clock")


def test_a_review_is_printed_as_json(database: str) -> None:
    store(database)
    done = run("fab1", "cam1", "a", "not-a-wafer", "--reviewer", "kim", "--json", database=database)
    assert json.loads(done.stdout) == {
        "fab": "fab1",
        "camera": "cam1",
        "imgid": "a",
        "label": "not-a-wafer",
        "reviewer": "kim",
        "note": None,
    }


def test_a_class_that_nothing_knows_is_refused_as_a_likely_typing_error(database: str) -> None:
    store(database)
    done = run("fab1", "cam1", "a", "Scracth", database=database)
    assert done.returncode != 0
    assert "got 'Scracth'" in done.stderr
    assert "Scratch" in done.stderr
    assert "--new-class" in done.stderr
    with Records(database) as records:
        wafer = records.wafer("fab1", "cam1", "a")
    assert wafer is not None
    assert wafer.reviews == ()
    assert run("fab1", "cam1", "a", "Scracth", "--new-class", database=database).returncode == 0


def test_a_class_that_a_model_predicted_or_a_person_named_is_known(database: str) -> None:
    store(database, "streak")
    assert run("fab1", "cam1", "a", "streak", database=database).returncode == 0
    assert run("fab1", "cam1", "a", "smudge", "--new-class", database=database).returncode == 0
    assert run("fab1", "cam1", "a", "smudge", database=database).returncode == 0


def test_a_wafer_that_nobody_sent_is_named(database: str) -> None:
    done = run("fab1", "cam1", "z", "Loc", database=database)
    assert done.returncode == 1
    assert done.stderr == "no wafer 'z' of camera 'cam1' in fab 'fab1' was received\n"
