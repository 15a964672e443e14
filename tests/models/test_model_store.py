"""The model store in a folder and in a bucket: a version is complete or not there, written once, checked when read."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fabwafer.commands.system import store_address
from fabwafer.models.card import CARD_NAME, read_card
from fabwafer.models.store import BucketStore, FolderStore, Store, StoreError, StoreUnavailableError, open_store
from tests.support.object_store import Bucket
from tests.support.tiny_models import make


@dataclass(frozen=True, slots=True)
class Case:
    """A store, and how to reach behind it."""

    store: Store
    damage: Callable[[str], object]
    """Writes other bytes to a file, by its name from the store's top."""
    delete: Callable[[str], object]


@pytest.fixture(params=["folder", "bucket", "bucket with a prefix"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """An empty store of either kind."""
    if request.param == "folder":
        top = tmp_path / "store"
        return Case(
            open_store(str(top)), lambda name: (top / name).write_bytes(b"damaged"), lambda name: (top / name).unlink()
        )
    own: Bucket = request.getfixturevalue("bucket")
    prefix = "fab/models/" if "prefix" in request.param else ""
    return Case(
        open_store(f"{own.url}/{prefix}", tmp_path / "work"),
        lambda name: own.files.pipe_file(own.key(f"{prefix}{name}"), b"damaged"),
        lambda name: own.files.rm_file(own.key(f"{prefix}{name}")),
    )


def made(store: Store, version: str, seed: int = 0) -> Path:
    """Makes a version in its work folder, with a report as retraining writes it."""
    work = make(store.work_folder(version), version, seed)
    (work / "report" / "champion").mkdir(parents=True, exist_ok=True)
    (work / "report" / "gate.json").write_text("{}\n")
    (work / "report" / "champion" / "evaluation.json").write_text("{}\n")
    return work


def put(store: Store, version: str, seed: int = 0) -> str:
    made(store, version, seed)
    return store.publish(version)


def test_a_published_version_comes_back_whole(case: Case, tmp_path: Path) -> None:
    assert (case.store.names(), case.store.versions(), case.store.published("v1")) == ([], ([], []), None)
    work = made(case.store, "v1")
    written = {file.relative_to(work): file.read_bytes() for file in work.rglob("*") if file.is_file()}
    assert case.store.publish("v1") == f"{case.store.address}/versions/v1"
    assert not work.exists()
    folder = case.store.fetch("v1", tmp_path / "fetched")
    assert {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()} == written
    assert case.store.published("v1") == read_card(folder)
    assert case.store.read("v1", "report/gate.json") == b"{}\n"


def test_a_folder_is_not_copied_to_be_fetched(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    put(store, "v1")
    assert store.fetch("v1", tmp_path / "unused") == tmp_path / "store" / "versions" / "v1"
    assert not (tmp_path / "unused").exists()


def test_versions_come_in_the_order_of_their_making(case: Case) -> None:
    for version, created in (("a", "2026-03-01"), ("b", "2026-01-01"), ("c", "2026-02-01")):
        work = made(case.store, version)
        card = work / CARD_NAME
        card.write_text(card.read_text().replace("2026-01-01", created))
        case.store.publish(version)
    cards, damaged = case.store.versions()
    assert [card.version for card in cards] == ["b", "c", "a"]
    assert damaged == []
    assert case.store.names() == ["a", "b", "c"]


def test_a_version_is_published_once(case: Case, tmp_path: Path) -> None:
    put(case.store, "v1")
    card = case.store.published("v1")
    made(case.store, "v1", seed=1)
    with pytest.raises(StoreError, match=r"the version v1 is in .* already"):
        case.store.publish("v1")
    assert case.store.published("v1") == card


def test_what_is_not_finished_is_not_published(case: Case) -> None:
    with pytest.raises(StoreError, match="the new version v1 is not complete: expected a model card"):
        case.store.publish("v1")
    make(case.store.work_folder("v1"), version="v2")
    with pytest.raises(StoreError, match="not complete: expected a card of version v1, found v2"):
        case.store.publish("v1")
    assert case.store.names() == []


def test_a_model_without_finite_answers_is_not_published(case: Case) -> None:
    make(case.store.work_folder("v1"), "v1", finite=False)
    with pytest.raises(StoreError, match=r"the new version v1 is refused: .*expected finite logits of its int8 file"):
        case.store.publish("v1")
    assert case.store.names() == []


@pytest.mark.parametrize("harm", ["damage", "delete"])
def test_a_damaged_version_is_refused_by_name(case: Case, tmp_path: Path, harm: str) -> None:
    put(case.store, "v1")
    put(case.store, "v2")
    getattr(case, harm)("versions/v1/tiny.onnx")
    for read in (case.store.published, lambda version: case.store.fetch(version, tmp_path / "fetched")):
        with pytest.raises(StoreError, match=r"the version v1 in .* is damaged: .*/versions/v1/tiny\.onnx"):
            read("v1")
    assert case.store.published("v2") is not None


def test_a_damaged_card_hides_no_other_version(case: Case) -> None:
    put(case.store, "v1")
    put(case.store, "v2")
    case.damage(f"versions/v1/{CARD_NAME}")
    cards, [damaged] = case.store.versions()
    assert [card.version for card in cards] == ["v2"]
    assert damaged.startswith(f"the version v1 in {case.store} is damaged: its card is not valid")
    with pytest.raises(StoreError, match=r"the version v1 in .* is damaged"):
        case.store.published("v1")


def test_a_version_that_is_not_there_is_named(case: Case, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no version v9 in "):
        case.store.fetch("v9", tmp_path)


@pytest.mark.parametrize("version", ["../up", "", "a/b", ".hidden"])
def test_a_version_stays_inside_the_store(case: Case, tmp_path: Path, version: str) -> None:
    for use in (case.store.location, case.store.work_folder, case.store.published, case.store.publish):
        with pytest.raises(StoreError, match="expected a version of letters"):
            use(version)


PUBLISH_AND_DIE = """
import os, pathlib, sys
from s3fs import S3FileSystem
from fabwafer.models.store import open_store

put, left = S3FileSystem.put_file, int(sys.argv[3])

def put_some(*arguments, **more):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return put(*arguments, **more)

S3FileSystem.put_file = put_some
S3FileSystem.pipe_file = lambda *arguments, **more: os._exit(9)
open_store(sys.argv[1], pathlib.Path(sys.argv[2])).publish("v1")
"""


@pytest.mark.parametrize("files", [0, 1, 3])
def test_an_upload_that_is_killed_leaves_no_version_and_is_finished_by_the_next(
    bucket: Bucket,
    tmp_path: Path,
    files: int,
) -> None:
    store = BucketStore(bucket.url, tmp_path)
    work = made(store, "v1")
    command = [sys.executable, "-c", PUBLISH_AND_DIE, bucket.url, str(tmp_path), str(files)]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert len(bucket.names()) == files
    assert (store.names(), store.versions(), store.published("v1")) == ([], ([], []), None)

    # What is made again may differ from what the first one left.
    made(store, "v1", seed=1)
    digest = read_card(work).digest
    store.publish("v1")
    card = store.published("v1")
    assert card is not None
    assert card.digest == digest
    assert len(bucket.names()) == 4
    assert not work.exists()


def test_of_two_that_finish_at_once_the_first_stays(bucket: Bucket, tmp_path: Path) -> None:
    class Late(BucketStore):
        """Looks before the other one is done, and writes after it."""

        def names(self) -> list[str]:
            return []

    first, second = BucketStore(bucket.url, tmp_path / "1"), Late(bucket.url, tmp_path / "2")
    work = made(second, "v1", seed=1)
    # Only the cards differ, as of runs that make the same from the same.
    made(first, "v1")
    (work / "tiny.onnx").write_bytes((first.work_folder("v1") / "tiny.onnx").read_bytes())
    card = (first.work_folder("v1") / CARD_NAME).read_text()
    (work / CARD_NAME).write_text(card.replace("2026-01-01", "2026-01-02"))
    first.publish("v1")
    with pytest.raises(StoreError, match=r"the version v1 is in .* already"):
        second.publish("v1")
    assert bucket.files.cat_file(bucket.key(f"versions/v1/{CARD_NAME}")).decode() == card
    assert first.published("v1") is not None


def test_a_card_whose_answer_was_lost_counts_as_written(bucket: Bucket, tmp_path: Path) -> None:
    class Forgetful(BucketStore):
        """Does not know that its card is there, as after a connection that broke."""

        def names(self) -> list[str]:
            return []

    store = Forgetful(bucket.url, tmp_path)
    card = (made(store, "v1") / CARD_NAME).read_bytes()
    bucket.files.pipe_file(bucket.key(f"versions/v1/{CARD_NAME}"), card)
    store.publish("v1")
    assert BucketStore(bucket.url, tmp_path).published("v1") is not None


def test_a_store_that_cannot_be_used_says_so_in_a_sentence(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        StoreUnavailableError, match=r"the model store s3://no-such-bucket/models cannot be used: .*bucket"
    ):
        BucketStore("s3://no-such-bucket/models", tmp_path).published("v1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StoreUnavailableError, match="cannot be used: The request signature"):
        BucketStore(bucket.url, tmp_path).names()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreUnavailableError, match=r"cannot be used: Unable to locate credentials"):
        BucketStore(bucket.url, tmp_path).names()


def test_an_address_that_is_no_store_is_refused() -> None:
    with pytest.raises(StoreError, match="expected the model store as a folder or s3://BUCKET/PREFIX, got 'gs://a/b'"):
        open_store("gs://a/b")
    with pytest.raises(StoreError, match="expected a bucket in the model store's URL"):
        open_store("s3:///models")


def test_the_store_is_the_one_named_else_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABWAFER_DATA", str(tmp_path))
    assert store_address(None, None) == str(tmp_path / "model-store")
    monkeypatch.setenv("FABWAFER_MODEL_STORE", "s3://models")
    assert store_address(None, None) == "s3://models"
    assert store_address(None, tmp_path / "system") == str(tmp_path / "system" / "model-store")
    assert store_address("named", tmp_path / "system") == "named"


def test_versions_are_made_in_a_folder_of_the_users_own(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    work = BucketStore(bucket.url).work_folder("v1")
    assert work == tmp_path / f"fabwafer-work-{os.getuid()}" / "v1"
    assert work.parent.stat().st_mode & 0o777 == 0o700
    assert BucketStore(bucket.url).work_folder("v1") == work
