"""The set-up of the models: the shipped model becomes the first champion, and no later one serves by itself."""

import errno
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fabwafer.models.card import CARD_NAME, ModelRefusedError, read_card
from fabwafer.models.setup import set_up
from fabwafer.models.shipped import default_model
from fabwafer.models.store import FolderStore, Store, StoreError, open_store
from fabwafer.records import Records
from tests.support import tiny_models
from tests.support.object_store import Bucket


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    own: Bucket = request.getfixturevalue("bucket")
    return open_store(f"{own.url}/models", tmp_path / "work")


def release(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str, seed: int = 0) -> None:
    """Let a release come with another model."""
    monkeypatch.setenv("FABWAFER_MODEL", str(tiny_models.make(folder, version, seed)))


def champions(records: Records) -> list[tuple[str, str]]:
    return [(rollout.champion, rollout.author) for rollout in records.rollouts()]


def test_the_first_start_publishes_the_model_and_names_it_champion(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    release(monkeypatch, tmp_path / "r1", "1.0")
    assert set_up(records, store) == []
    assert champions(records) == [("1.0", "fabwafer")]
    assert store.published("1.0") == store.card("1.0") == read_card(tmp_path / "r1")
    assert set_up(records, store) == []
    assert (champions(records), store.names()) == ([("1.0", "fabwafer")], ["1.0"])


def test_the_shipped_model_is_published_with_its_weights(records: Records, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    set_up(records, store)
    card = read_card(default_model())
    names = {path.name for path in store.fetch(card.version, tmp_path).iterdir()}
    assert names == {CARD_NAME, *(entry.name for entry in card.entries)}
    assert card.weights is not None


def test_the_model_of_a_later_release_is_added_and_serves_only_when_promoted(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    release(monkeypatch, tmp_path / "r1", "1.0")
    set_up(records, store)
    release(monkeypatch, tmp_path / "r2", "2.0")
    assert set_up(records, store) == ["model 2.0 came with this release; to let it serve: fabwafer model promote 2.0"]
    assert set_up(records, store) == []
    assert (champions(records), store.names()) == ([("1.0", "fabwafer")], ["1.0", "2.0"])


def test_a_set_up_that_was_killed_is_finished_by_the_next(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, tmp_path / "r1", "1.0")
    store = FolderStore(tmp_path / "store")
    (store.work_folder("1.0") / "tiny.onnx").write_bytes(b"half a fi")
    set_up(records, store)
    assert champions(records) == [("1.0", "fabwafer")]
    assert store.published("1.0") is not None


def test_a_champion_that_a_person_named_before_stays(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.set_rollout("own", author="kim")
    release(monkeypatch, tmp_path / "r1", "1.0")
    assert len(set_up(records, FolderStore(tmp_path / "store"))) == 1
    assert champions(records) == [("own", "kim")]


def test_another_model_under_the_same_version_is_reported_and_not_used(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    release(monkeypatch, tmp_path / "r1", "1.0")
    set_up(records, store)
    release(monkeypatch, tmp_path / "r2", "1.0", seed=2)
    [sentence] = set_up(records, store)
    assert sentence.startswith(f"the version 1.0 in {store} is not the 1.0 in {tmp_path / 'r2'}")
    assert store.card("1.0") == read_card(tmp_path / "r1")


def test_a_release_without_a_complete_model_names_no_champion(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, tmp_path / "r1", "1.0")
    (tmp_path / "r1" / "tiny.onnx").unlink()
    with pytest.raises(ModelRefusedError, match="could not read it"):
        set_up(records, FolderStore(tmp_path / "store"))
    assert champions(records) == []


def test_two_set_ups_at_once_publish_the_model_once_and_both_name_it(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, tmp_path / "r1", "1.0")
    together = threading.Barrier(2)

    def start(number: int) -> list[tuple[str, str]]:
        own = tmp_path / f"records-{number}.db"
        shutil.copy(migrated_sqlite, own)
        with Records(f"sqlite:///{own}") as records:
            together.wait(30)
            set_up(records, FolderStore(tmp_path / "store"))
            return champions(records)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(start, range(2))) == [[("1.0", "fabwafer")]] * 2
    store = FolderStore(tmp_path / "store")
    assert store.published("1.0") == read_card(tmp_path / "r1")
    assert list((tmp_path / "store" / ".work").iterdir()) == []


def test_a_model_that_a_full_disk_keeps_out_of_the_store_is_told_in_a_sentence(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(monkeypatch, tmp_path / "r1", "1.0")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"cannot copy 1\.0 into .*: No space left on device"):
        set_up(records, FolderStore(tmp_path / "store"))
