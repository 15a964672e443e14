"""`fabwafer model`: shows the versions, champion and candidate, and changes them, for people and scripts."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fabwafer.commands.model import app
from fabwafer.errors import FabwaferError
from fabwafer.models.card import read_card, write_card
from fabwafer.models.shipped import default_model
from fabwafer.models.store import Store, open_store
from fabwafer.records import Records, Rollout
from tests.support.object_store import Bucket
from tests.support.records import WHO, predicted
from tests.support.tiny_models import make

FIRST = "first"
"""The first champion."""


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of either kind with the first champion and v1, v2 and v3; the environment names it."""
    if request.param == "folder":
        address = str(tmp_path / "store")
    else:
        own: Bucket = request.getfixturevalue("bucket")
        address = f"{own.url}/models"
    monkeypatch.setenv("FABWAFER_MODEL_STORE", address)
    monkeypatch.setenv("COLUMNS", "200")
    opened = open_store(address, tmp_path / "work")
    for version in (FIRST, "v1", "v2", "v3"):
        make(opened.work_folder(version), version=version)
        opened.publish(version)
    return opened


@pytest.fixture
def own_records(tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    """Records that name the first champion and hold nothing else; the environment names them."""
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    url = f"sqlite:///{tmp_path / 'records.db'}"
    monkeypatch.setenv("FABWAFER_DATABASE_URL", url)
    with Records(url) as opened:
        opened.set_rollout(FIRST, author="fabwafer")
        yield opened


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def ok(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*words: str) -> str:
    """The sentence that the command line prints of the error."""
    result = run(*words)
    assert result.exit_code == 1
    assert isinstance(result.exception, FabwaferError), result.exception
    assert (result.stdout, result.stderr) == ("", "")
    return str(result.exception)


def wanted(records: Records) -> tuple[str, str | None, float]:
    rollout = records.rollout()
    assert rollout is not None
    return rollout.champion, rollout.candidate, rollout.share


def listed(*words: str) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in ok("list", "--json", *words).splitlines()]
    return {line["version"]: line for line in lines}


def test_the_list_shows_each_version_and_who_is_to_serve(store: Store, own_records: Records) -> None:
    assert {version: line["states"] for version, line in listed().items()} == {
        FIRST: ["champion"],
        "v1": [],
        "v2": [],
        "v3": [],
    }
    ok("promote", "v1")
    ok("candidate", "v2")
    lines = listed()
    assert [lines[version]["states"] for version in (FIRST, "v1", "v2", "v3")] == [[], ["champion"], ["candidate"], []]
    assert lines["v1"]["macro_f1"] is None
    table = ok("list")
    assert [word in table for word in (FIRST, "v3", "champion", "candidate")] == [True] * 4


def test_the_list_says_on_which_maps_the_figures_were_measured(store: Store, own_records: Records) -> None:
    for version, maps, source in (("own", 120, "own maps"), ("later", 150, "own maps and reviewed")):
        work = make(store.work_folder(version), version)
        card = read_card(work)
        data = card.training_data.model_copy(update={"name": source})
        figures = {"macro_f1": 0.9, "worst_class_recall": 0.8, "maps": maps, "measured_on": f"{maps} held-out maps"}
        write_card(work, card.model_copy(update={"metrics": figures, "training_data": data}))
        store.publish(version)
    result = run("list")
    assert "120 held out of own maps" in result.stdout
    assert "150 held out of own maps and reviewed" in result.stdout
    assert "fabwafer evaluate SOURCE --model DIR" in result.stderr
    lines = listed()
    assert (lines["own"]["maps"], lines["own"]["measured_on"]) == (120, "120 held-out maps")
    assert (lines[FIRST]["maps"], lines[FIRST]["measured_on"]) == (None, None)


def test_the_set_up_publishes_the_shipped_model_and_names_it_champion(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    card = read_card(default_model())
    data = ("--data", str(tmp_path))
    assert "who is to serve is not known: the records name no champion yet" in run("list", *data).stderr
    assert "the records name no champion yet" in refused("candidate", "v1", *data)
    assert ok("set-up", *data) == f"The champion is {card.version}.\n"
    line = listed(*data)[card.version]
    assert (line["states"], line["macro_f1"]) == (["champion"], card.metrics["macro_f1"])
    assert "wm811k_dev" in ok("list", *data)


def test_the_list_needs_no_records_and_says_what_it_does_not_know(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FABWAFER_DATABASE_URL", raising=False)
    monkeypatch.setenv("FABWAFER_DATA", str(tmp_path / "nothing"))
    result = run("list", "--json")
    assert result.exit_code == 0
    assert "who is to serve is not known: no records in" in result.stderr
    assert [json.loads(line)["states"] for line in result.stdout.splitlines()] == [[]] * 4


def test_a_local_system_has_its_store_beside_its_records(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FABWAFER_MODEL_STORE", str(tmp_path / "of another system"))
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    own = open_store(str(tmp_path / "model-store"))
    make(own.work_folder("local-1"), version="local-1")
    own.publish("local-1")
    data = ("--data", str(tmp_path))
    ok("promote", "local-1", *data)
    assert listed(*data)["local-1"]["states"] == ["champion"]


def test_a_candidate_is_tried_beside_the_champion_and_then_promoted(store: Store, own_records: Records) -> None:
    ok("promote", "v1")
    printed = ok("candidate", "v2", "--share", "0.25")
    assert "On trial is v2, with 25% of the images." in printed
    assert "follows within seconds" in printed
    assert wanted(own_records) == ("v1", "v2", 0.25)
    assert "The champion is v2, before it v1." in ok("promote")
    assert wanted(own_records) == ("v2", None, 0.0)
    assert "no version is on trial, so name the one to promote; the versions there are:" in refused("promote")


def test_promoting_another_leaves_the_trial_going(store: Store, own_records: Records) -> None:
    ok("candidate", "v3", "--share", "0.2")
    ok("promote", "v2")
    assert wanted(own_records) == ("v2", "v3", 0.2)


def test_a_trial_can_be_ended(store: Store, own_records: Records) -> None:
    ok("candidate", "v3")
    assert wanted(own_records) == (FIRST, "v3", 0.1)
    assert "No trial." in ok("candidate", "--none")
    assert wanted(own_records) == (FIRST, None, 0.0)
    assert ok("candidate", "--none") == "no version is on trial\n"
    assert "expected the version to try, or --none" in refused("candidate")


def test_what_is_so_already_is_not_written_again(store: Store, own_records: Records) -> None:
    for _ in range(2):
        ok("promote", "v1")
    for _ in range(2):
        ok("candidate", "v2")
    assert len(own_records.rollouts()) == 3
    assert "v1 is the champion already" in refused("candidate", "v1")
    ok("candidate", "v2", "--share", "0.5")
    assert wanted(own_records) == ("v1", "v2", 0.5)


@pytest.mark.parametrize("command", ["promote", "candidate"])
def test_a_version_that_cannot_serve_is_refused_and_the_others_are_named(
    store: Store, own_records: Records, command: str
) -> None:
    versions = f"the versions there are: {FIRST}, v1, v2, v3"
    assert refused(command, "v9") == f"there is no version v9 in {store}; {versions}"
    damage(store, "v2")
    sentence = refused(command, "v2")
    assert sentence.startswith(f"the version v2 in {store} is damaged: ")
    assert sentence.endswith(versions)
    assert "expected a version of letters" in refused(command, "../v1")
    assert len(own_records.rollouts()) == 1


def damage(store: Store, version: str) -> None:
    """Writes other bytes to a version's model."""
    file = f"{store.location(version)}/tiny.onnx"
    if file.startswith("s3://"):
        from s3fs import S3FileSystem

        S3FileSystem(skip_instance_cache=True).pipe_file(file, b"damaged")
    else:
        Path(file).write_bytes(b"damaged")


def test_a_share_out_of_range_is_refused(store: Store, own_records: Records) -> None:
    assert refused("candidate", "v1", "--share", "10") == "expected a share of 0 to 1, got 10.0"


def test_rollback_goes_back_one_champion_at_a_time_and_ends_the_trial(store: Store, own_records: Records) -> None:
    ok("promote", "v1")
    ok("promote", "v2")
    ok("candidate", "v3")
    printed = ok("rollback")
    assert "The champion is v1, before it v2." in printed
    assert "To return: fabwafer model promote v2" in printed
    assert wanted(own_records) == ("v1", None, 0.0)
    # A second rollback means: still bad, further back. It must not bring v2 back.
    assert f"The champion is {FIRST}, before it v1." in ok("rollback")
    assert wanted(own_records) == (FIRST, None, 0.0)
    sentence = refused("rollback")
    assert f"{FIRST} is to serve, and there is none before it" in sentence
    assert "promote it by name: v1, v2" in sentence
    assert len(own_records.rollouts()) == 6


def test_the_first_champion_cannot_be_rolled_back(store: Store, own_records: Records) -> None:
    assert refused("rollback") == f"{FIRST} is to serve, and there is none before it"


def test_rollback_passes_over_what_cannot_serve(store: Store, own_records: Records) -> None:
    for version in ("v1", "v2", "v3"):
        ok("promote", version)
    damage(store, "v2")
    result = run("rollback")
    assert result.exit_code == 0
    assert f"passed over: the version v2 in {store} is damaged" in result.stderr
    assert wanted(own_records)[0] == "v1"
    damage(store, FIRST)
    assert refused("rollback").startswith(f"passed over: the version {FIRST} in {store} is damaged")
    assert wanted(own_records)[0] == "v1"


def test_rollback_does_not_take_a_store_that_is_away_for_damage(
    own_records: Records,
    monkeypatch: pytest.MonkeyPatch,
    bucket: Bucket,
) -> None:
    own_records.set_rollout("v1", author="kim")
    own_records.set_rollout("v2", author="kim")
    monkeypatch.setenv("FABWAFER_MODEL_STORE", "s3://no-such-bucket")
    assert "the model store s3://no-such-bucket cannot be used" in refused("rollback")
    assert wanted(own_records)[0] == "v2"


def test_the_history_shows_the_newest_first_and_who_decided_it(store: Store, own_records: Records) -> None:
    ok("promote", "v1", "--author", "kim")
    ok("candidate", "v2", "--author", "lee [night shift]")
    ok("rollback")
    lines = [line.split() for line in ok("history").splitlines() if "20" in line]
    assert len(lines) == 4
    assert lines[0][-1] == FIRST
    assert lines[1][2:] == ["lee", "[night", "shift]", "v1", "v2", "10%"]
    assert lines[2][2:] == ["kim", "v1"]
    assert lines[3][2:] == ["fabwafer", FIRST]


def test_a_version_that_could_not_serve_is_shown_as_refused_with_the_reason(store: Store, own_records: Records) -> None:
    reason = "its pod wafer-1 cannot be scheduled: Insufficient cpu [1 of 1 nodes]"
    ok("promote", "v1")
    own_records.set_rollout(FIRST, author="fabwafer", refused="v1", reason=reason)
    lines_of_history = ok("history").splitlines()
    assert lines_of_history[-1].endswith(f" v1 was refused: {reason}")
    assert lines_of_history[3].split()[2:] == ["fabwafer", FIRST, "v1"]
    lines = listed()
    assert (lines["v1"]["states"], lines["v1"]["refused"]) == (["refused"], reason)
    assert (lines[FIRST]["states"], lines[FIRST]["refused"]) == (["champion"], None)
    assert "refused" in ok("list")
    assert f"v1 was refused: {reason}\n" in run("list").stderr
    ok("promote", "v1")  # somebody asks for it again
    assert listed()["v1"]["states"] == ["champion"]


def test_the_author_is_the_user_unless_one_is_named(
    store: Store, own_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "robin")
    ok("promote", "v1")
    assert own_records.rollouts()[0].author == "robin"
    ok("promote", "v2", "--author", "kim")
    assert own_records.rollouts()[0].author == "kim"


def test_without_records_nothing_can_be_promoted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABWAFER_DATABASE_URL", raising=False)
    monkeypatch.setenv("FABWAFER_DATA", str(tmp_path / "nothing"))
    assert "start a system with `fabwafer up` first" in refused("promote", "v1")


def test_all_that_was_said_can_be_read_from_either_database(records: Records) -> None:
    assert records.rollouts() == []
    records.set_rollout("v1", author="kim", at=1)
    records.set_rollout("v1", candidate="v2", share=0.5, author="lee", at=1)
    records.set_rollout("v1", author="fabwafer", at=2, refused="v2", reason="no room")
    assert records.rollouts() == [
        Rollout("v1", None, 0.0, "fabwafer", 2, "v2", "no room"),
        Rollout("v1", "v2", 0.5, "lee", 1),
        Rollout("v1", None, 0.0, "kim", 1),
    ]
    assert records.rollout() == records.rollouts()[0]


def compare(records: Records, *pairs: tuple[str, str]) -> None:
    """Lets the champion and v2, which is on trial, say these classes of as many wafers."""
    for number, (champion, candidate) in enumerate(pairs):
        imgid = f"w{number}"
        records.store_predictions(
            [predicted(champion, imgid=imgid), predicted(candidate, imgid=imgid, model="v2", shadow=True)]
        )


def test_a_trial_shows_where_the_two_differ_and_who_is_right(store: Store, own_records: Records) -> None:
    ok("candidate", "v2")
    compare(own_records, ("Loc", "Loc"), ("Loc", "Scratch"), ("Loc", "Scratch"), ("none", "Donut"))
    for imgid, label in (("w0", "Loc"), ("w1", "Scratch"), ("w3", "Donut")):
        own_records.add_review(WHO["fab"], WHO["camera"], imgid, label=label, reviewer="kim")

    assert json.loads(ok("trial", "--json")) == {
        "candidate": "v2",
        "images": 4,
        "agreed": 1,
        "differing": [["Loc", "Scratch", 2], ["none", "Donut", 1]],
        "reviewed": 3,
        "champion_right": 1,
        "candidate_right": 3,
    }
    lines = ok("trial").splitlines()
    assert lines[0] == "Images that both v2 and the champion answered: 4, alike: 1 (25.0%)."
    assert lines[1] == "Of them reviewed: 3, the champion right: 1 (33.3%), v2 right: 3 (100.0%)."
    assert [line.split() for line in lines if "Loc" in line or "Donut" in line] == [
        ["Loc", "Scratch", "2"],
        ["none", "Donut", "1"],
    ]


def test_a_trial_says_what_is_not_known_yet(store: Store, own_records: Records) -> None:
    assert "no version is on trial" in refused("trial")
    ok("candidate", "v2")
    assert ok("trial") == "v2 has answered no image yet that the champion answered too.\n"
    compare(own_records, ("Loc", "Loc"))
    assert "Nobody reviewed any of them yet" in ok("trial")
    ok("candidate", "--none")
    assert "answered: 1, alike: 1" in ok("trial", "v2")


def test_a_models_folder_is_added_to_the_store_and_serves_only_when_promoted(
    store: Store, own_records: Records, tmp_path: Path
) -> None:
    model = make(tmp_path / "own", "own-1")

    assert f"own-1 is in {store}" in ok("add", str(model))
    assert "own-1 was in the store already" in ok("add", str(model))

    assert wanted(own_records)[0] == FIRST
    assert store.published("own-1") == read_card(model)
    ok("promote", "own-1")
    assert wanted(own_records)[0] == "own-1"
    assert model.is_dir(), "the folder stays where it is"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda model: (model / "card.json").unlink(), "expected a model card"),
        (lambda model: (model / "tiny.onnx").unlink(), "could not read it"),
        (lambda model: (model / "tiny.onnx").write_bytes(b"another"), "SHA-256"),
        (lambda model: make(model, "own-1", finite=False), "finite"),
        (lambda model: make(model, "../own"), "expected a version of letters"),
        (lambda model: make(model, "v1", seed=5), "v1 is in .* already, with another content"),
    ],
)
def test_a_model_that_is_not_intact_or_does_not_answer_is_not_added(
    store: Store, own_records: Records, tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    model = make(tmp_path / "own", "own-1")
    spoil(model)

    assert re.search(sentence, refused("add", str(model)))
    assert store.names() == [FIRST, "v1", "v2", "v3"]


def test_a_model_is_added_without_records(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_DATA", str(tmp_path / "absent"))
    ok("add", str(make(tmp_path / "own", "own-1")))
    assert "own-1" in store.names()
