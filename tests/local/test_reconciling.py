"""A real TorchServe follows the champion and the candidate in the records, and no request waits meanwhile."""

import asyncio
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from fabwafer.models.card import describe_file, read_card, write_card
from fabwafer.models.key_file import authorization
from fabwafer.models.model_server import NotLoadedError, ServerUnavailableError
from fabwafer.models.reconciler import Reconciler
from fabwafer.models.rollout import current
from fabwafer.models.setup import set_up
from fabwafer.models.store import FolderStore, Store, StoreError
from fabwafer.records import Records, migrate
from fabwafer_handlers.management import Management
from fabwafer_handlers.management import TorchServe as ModelServer
from fabwafer_local import torchserve
from fabwafer_local.rollout import Archives
from tests.support import tiny_models
from tests.support.model_servers import TorchServe, b64, image, v2
from tests.support.running import wait_until


def reconciler(
    directory: Path, records: Records, store: Store, management: str, say: Callable[[str], None], look: float = 0.01
) -> Reconciler:
    """The reconciler as the local system runs it."""
    archives = Archives(directory, store)
    server = ModelServer(Management(management, torchserve.key_file(directory)), archives.of, archives.load_at_start)
    return Reconciler(records, server, say, look)


class Served:
    """A model server, the records, a store, and the reconciler between them."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.directory = directory / "torchserve"
        self.store = FolderStore(directory / "store")
        url = f"sqlite:///{directory / 'records.db'}"
        migrate(url)
        self.records = Records(url)
        self.server = TorchServe(self.directory, model)
        self.management = Management(self.server.management, self.server.key_file)
        self.sentences: list[str] = []
        self.reconciler = reconciler(
            self.directory, self.records, self.store, self.server.management, self.sentences.append
        )

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self.records.close()

    def publish(self, version: str, seed: int = 1) -> None:
        tiny_models.make(self.store.work_folder(version), version, seed)
        self.store.publish(version)

    def publish_broken(self, version: str) -> None:
        """Put a version into the store that is just as its card describes it, and no network."""
        work = self.directory.parent / "store" / "versions" / version  # publishing refuses it
        tiny_models.make(work, version)
        (work / "tiny.onnx").write_bytes(b"no network, though the card names just these bytes")
        files = dict.fromkeys(("int8", "float32"), describe_file(work / "tiny.onnx"))
        write_card(work, read_card(work).model_copy(update={"files": files}))

    def promote(self, version: str) -> None:
        self.records.set_rollout(version, author="kim")

    def try_out(self, version: str | None, champion: str = "tiny-1") -> None:
        self.records.set_rollout(champion, candidate=version, share=0.1 if version else 0.0, author="kim")

    def step(self) -> None:
        asyncio.run(self.reconciler.step())

    def answering(self) -> Any:
        status, answer = self.server.post("/v2/models/wafer/infer", v2(b64(image())))
        assert status == 200, answer
        return answer["model_version"]

    def on_trial(self, version: str) -> Any:
        """The version that answers at the bridge's URL for a candidate, or the status."""
        path = torchserve.candidate_url("").replace("{version}", version)
        status, answer = self.server.post(path, v2(b64(image())))
        return answer["model_version"] if status == 200 else status

    def manage(self, method: str, path: str) -> None:
        """Changes the server as somebody else with the token could."""
        request = urllib.request.Request(
            f"{self.server.management}/models/wafer{path}",
            method=method,
            headers=authorization(self.server.key_file, "management"),
        )
        urllib.request.urlopen(request, timeout=60).close()

    def loaded(self) -> list[str]:
        return list(asyncio.run(self.management.loaded()).versions)


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests; each ends with the first champion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FABWAFER_MODEL", str(tiny_model))
        with Served(tmp_path_factory.mktemp("rollout"), tiny_model) as served:
            set_up(served.records, served.store)
            yield served


@pytest.fixture(autouse=True)
def back_to_the_first(served: Served) -> Iterator[None]:
    """Whatever a test leaves, the next one begins with the first champion."""
    yield
    served.promote("tiny-1")
    served.step()
    served.step()
    assert (served.answering(), served.loaded()) == ("tiny-1", ["tiny-1"])
    served.sentences.clear()


def test_while_the_champion_serves_nothing_is_done(served: Served) -> None:
    served.step()
    assert served.answering() == "tiny-1"
    assert served.sentences == []


def test_a_promoted_version_takes_over_and_no_request_meanwhile_fails(served: Served) -> None:
    served.publish("v2")
    answers: list[str] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            answers.append(served.answering())

    asking = threading.Thread(target=ask)
    asking.start()
    served.promote("v2")
    served.step()
    served.step()
    assert served.loaded() == ["v2"]
    last = len(answers)
    # The asking ends with the first request that fails.
    wait_until(lambda: len(answers) >= last + 2 or not asking.is_alive(), "answers of the new version")
    enough.set()
    asking.join(60)
    assert answers[0] == "tiny-1"
    assert answers[-1] == "v2"
    assert answers == sorted(answers)  # never back
    assert served.sentences == ["model v2 serves from now on, before it tiny-1"]


def test_a_server_that_starts_again_starts_with_the_champion(served: Served) -> None:
    served.publish("v3", seed=3)
    served.promote("v3")
    served.step()
    served.server.stop()
    served.server.start()
    assert served.answering() == "v3"


def test_a_system_starts_with_the_champion_or_else_with_the_model_that_was_loaded_last(
    served: Served, tmp_path: Path
) -> None:
    served.publish("v4", seed=4)
    served.promote("gone")
    fresh = Archives(tmp_path, served.store)
    with pytest.raises(StoreError, match="there is no version gone"):
        fresh.at_start(served.records, served.sentences.append)
    served.promote("v4")
    champion = fresh.at_start(served.records, served.sentences.append)
    assert zipfile.ZipFile(champion).read("card.json") == served.store.read("v4", "card.json")
    torchserve.prepare(tmp_path, champion, torchserve.TorchServePorts(1, 2, 3, 4, 5)).temporary.rmdir()
    served.promote("gone")
    assert fresh.at_start(served.records, served.sentences.append) == champion
    assert served.sentences == [
        f"starting with the model that was loaded last: there is no version gone in {served.store}"
    ]


def test_a_system_whose_store_is_away_starts_with_the_model_that_was_loaded_last(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    away = Archives(served.directory, FolderStore(tmp_path / "file"))
    assert away.at_start(served.records, served.sentences.append) == torchserve.loaded_at_start(served.directory)
    assert [sentence.partition(": ")[0] for sentence in served.sentences] == [
        "this release's model cannot be added to the store",
        "starting with the model that was loaded last",
    ]


def test_a_version_that_is_not_there_changes_nothing_until_it_is(served: Served) -> None:
    served.promote("v5")
    for _ in range(2):
        with pytest.raises(StoreError, match="there is no version v5"):
            served.step()
        assert served.answering() == "tiny-1"
    served.publish("v5", seed=5)
    served.step()
    assert served.answering() == "v5"


def test_a_version_that_cannot_be_loaded_is_refused_in_the_records_and_changes_nothing(served: Served) -> None:
    served.publish_broken("broken")
    for _ in range(2):  # whoever promotes it again has it tried again
        served.promote("broken")
        with pytest.raises(NotLoadedError, match="Failed to start workers"):
            served.step()
        served.step()  # not again
        assert (served.answering(), served.loaded()) == ("tiny-1", ["tiny-1"])
        rollout = current(served.records)
        assert (rollout.champion, rollout.refused, rollout.author) == ("tiny-1", "broken", "fabwafer")
        assert "Failed to start workers" in str(rollout.reason)
    served.publish("v6", seed=6)
    served.promote("v6")
    served.step()
    assert served.answering() == "v6"


def test_a_failure_is_reported_once_and_tried_again(served: Served) -> None:
    served.promote("v7")

    async def watched() -> list[str]:
        sentences: asyncio.Queue[str] = asyncio.Queue()
        watching = reconciler(
            served.directory, served.records, served.store, served.server.management, sentences.put_nowait
        )
        running = asyncio.create_task(watching.run())
        first = await sentences.get()
        await asyncio.sleep(0.3)
        served.publish("v7", seed=7)
        second = await sentences.get()
        running.cancel()
        return [first, second]

    assert asyncio.run(asyncio.wait_for(watched(), 60)) == [
        f"the model stays as it is: there is no version v7 in {served.store}",
        "model v7 serves from now on, before it tiny-1",
    ]


def test_a_candidate_is_loaded_beside_the_champion_and_ends_with_its_trial(served: Served) -> None:
    served.publish("v9", seed=9)
    served.try_out("v9")
    served.step()
    served.step()  # nothing more
    assert (served.answering(), served.on_trial("v9")) == ("tiny-1", "v9")
    served.try_out(None)
    served.step()
    assert (served.loaded(), served.on_trial("v9")) == (["tiny-1"], 404)
    assert served.sentences == ["model v9 is on trial from now on"]


def test_a_candidate_that_is_promoted_takes_over_and_the_champion_before_it_can_be_tried(served: Served) -> None:
    served.publish("v10", seed=10)
    served.try_out("v10")
    served.step()
    served.try_out("tiny-1", champion="v10")
    for _ in range(2):
        served.step()
    assert (served.answering(), sorted(served.loaded())) == ("v10", ["tiny-1", "v10"])
    assert served.sentences == [
        "model v10 is on trial from now on",
        "model v10 serves from now on, before it tiny-1",
    ]


def test_a_server_that_starts_again_has_the_candidate_again(served: Served) -> None:
    served.publish("v11", seed=11)
    served.try_out("v11")
    served.step()
    served.server.stop()
    served.server.start()
    assert served.loaded() == ["tiny-1"]
    served.step()
    assert (served.answering(), served.on_trial("v11")) == ("tiny-1", "v11")


def test_a_candidate_that_cannot_be_loaded_keeps_no_champion_from_serving(served: Served) -> None:
    served.publish_broken("broken-candidate")
    served.publish("v12", seed=12)
    served.try_out("broken-candidate")
    with pytest.raises(NotLoadedError, match="Failed to start workers"):
        served.step()
    served.step()  # not again
    rollout = current(served.records)
    assert (rollout.champion, rollout.candidate, rollout.refused) == ("tiny-1", None, "broken-candidate")
    served.try_out("broken-candidate", champion="v12")
    served.step()
    with pytest.raises(NotLoadedError, match="Failed to start workers"):
        served.step()
    served.step()
    assert (served.answering(), served.loaded()) == ("v12", ["v12"])


class UnreadableStore(FolderStore):
    """A store whose volume has gone bad."""

    def names(self) -> list[str]:
        raise OSError(5, "Input/output error", self.address)


def test_no_failure_ends_the_reconciler(served: Served) -> None:
    served.promote("v8")

    async def watched() -> str:
        sentences: asyncio.Queue[str] = asyncio.Queue()
        watching = reconciler(
            served.directory,
            served.records,
            UnreadableStore(Path("bad")),
            served.server.management,
            sentences.put_nowait,
        )
        running = asyncio.create_task(watching.run())
        first = await sentences.get()
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
        return first

    sentence = asyncio.run(asyncio.wait_for(watched(), 60))
    assert sentence == "the model stays as it is: [Errno 5] Input/output error: 'bad'"
    assert served.answering() == "tiny-1"


def test_a_server_that_does_not_answer_is_waited_for(served: Served) -> None:
    nobody = reconciler(served.directory, served.records, served.store, "http://127.0.0.1:1", served.sentences.append)

    async def watched() -> None:
        running = asyncio.create_task(nobody.run())
        await asyncio.sleep(0.3)
        assert not running.done()
        running.cancel()

    asyncio.run(watched())
    assert served.sentences == []


def test_a_model_that_somebody_removed_is_loaded_again(served: Served) -> None:
    asyncio.run(served.management.drop("tiny-1"))
    assert served.loaded() == []
    served.step()
    assert (served.answering(), served.loaded()) == ("tiny-1", ["tiny-1"])
    assert served.sentences == ["model tiny-1 serves from now on, before it none"]


def test_workers_that_somebody_stopped_are_started_again(served: Served) -> None:
    served.publish("v13", seed=13)
    served.try_out("v13")
    served.step()
    for version in ("tiny-1", "v13"):
        served.manage("PUT", f"/{version}?min_worker=0&max_worker=0&synchronous=true")
    assert served.on_trial("v13") == 503
    served.step()
    assert (served.answering(), served.on_trial("v13")) == ("tiny-1", "v13")
    assert sorted(served.sentences[1:]) == [
        "model tiny-1 had no worker left; it answers again",
        "model v13 had no worker left; it answers again",
    ]


def test_another_version_that_somebody_lets_answer_gives_way_to_the_champion(served: Served) -> None:
    served.publish("v14", seed=14)
    served.try_out("v14")
    served.step()
    served.manage("PUT", "/v14/set-default")
    served.manage("PUT", "/tiny-1?min_worker=0&max_worker=0&synchronous=true")
    assert served.answering() == "v14"
    served.step()
    assert served.answering() == "tiny-1"
    assert served.sentences[1:] == ["model tiny-1 serves from now on, before it v14"]


def test_a_champion_that_cannot_be_loaded_is_tried_again_while_nothing_answers(served: Served) -> None:
    served.publish_broken("broken-again")
    asyncio.run(served.management.drop("tiny-1"))
    served.promote("broken-again")
    for _ in range(2):
        with pytest.raises(NotLoadedError):
            served.step()
    assert current(served.records).champion == "broken-again"


def test_a_server_that_was_started_again_refuses_no_version_for_the_token_of_the_one_before(
    served: Served, tmp_path: Path
) -> None:
    stale = tmp_path / "key_file.json"
    stale.write_text('{"management": {"key": "of-before"}}')
    management = Management(served.server.management, stale)
    with pytest.raises(ServerUnavailableError, match="took no token for POST /models"):
        asyncio.run(management.load("any.mar"))
