"""Who serves and who is tried, made true: a real TorchServe follows the records, and no image waits meanwhile."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from fabwafer.models.card import default_model, describe_file, read_card, write_card
from fabwafer.models.store import FolderStore, StoreError
from fabwafer.records import Records, migrate
from fabwafer_local import torchserve
from fabwafer_local.rollout import Management, NotLoadedError, Reconciler
from fabwafer_local.torchserve import TorchServePorts
from tests.support import tiny_models
from tests.support.model_servers import TorchServe, b64, image, post, v2
from tests.support.running import wait_until


class Served:
    """A model server, the records, a store, and what brings them together."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.directory = directory / "torchserve"
        self.store = FolderStore(directory / "store")
        url = f"sqlite:///{directory / 'records.db'}"
        migrate(url)
        self.records = Records(url)
        self.server = TorchServe(self.directory, model)
        self.said: list[str] = []
        self.reconciler = Reconciler(
            self.directory, self.records, self.store, Management(self.server.management), self.said.append
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
        """A version that is just as its card describes it, and no network."""
        work = self.store.work_folder(version)
        tiny_models.make(work, version)
        (work / "tiny.onnx").write_bytes(b"no network, though the card names just these bytes")
        files = dict.fromkeys(("int8", "float32"), describe_file(work / "tiny.onnx"))
        write_card(work, read_card(work).model_copy(update={"files": files}))
        self.store.publish(version)

    def promote(self, version: str | None) -> None:
        self.records.set_rollout(version or read_card(default_model()).version, author="kim")

    def try_out(self, version: str | None, champion: str | None = None) -> None:
        champion = champion or read_card(default_model()).version
        self.records.set_rollout(champion, candidate=version, share=0.1 if version else 0.0, author="kim")

    def step(self) -> None:
        asyncio.run(self.reconciler.step())

    def answering(self) -> Any:
        status, answer = post(f"{self.server.url}/v2/models/wafer/infer", v2(b64(image())))
        assert status == 200, answer
        return answer["model_version"]

    def on_trial(self, version: str) -> Any:
        """What the bridge's way to a candidate brings."""
        url = torchserve.candidate_url(self.server.url).replace("{version}", version)
        status, answer = post(url, v2(b64(image())))
        return answer["model_version"] if status == 200 else status

    def loaded(self) -> list[str]:
        return asyncio.run(Management(self.server.management).versions())[1]


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests; each ends with the shipped model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FABWAFER_MODEL", str(tiny_model))
        with Served(tmp_path_factory.mktemp("rollout"), tiny_model) as served:
            yield served


@pytest.fixture(autouse=True)
def back_to_shipped(served: Served) -> Iterator[None]:
    """Whatever a test leaves, the next one begins with the shipped model, which nothing is said about."""
    yield
    served.promote(None)
    served.step()
    served.step()
    assert (served.answering(), served.loaded()) == ("tiny-1", ["tiny-1"])
    served.said.clear()


def test_while_nothing_was_said_the_shipped_model_serves_on(served: Served) -> None:
    served.step()
    assert served.answering() == "tiny-1"
    assert served.said == []


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
    assert served.said == ["model v2 serves from now on, before it tiny-1"]


def test_a_server_that_starts_again_starts_with_the_champion(served: Served) -> None:
    served.publish("v3", seed=3)
    served.promote("v3")
    served.step()
    served.server.stop()
    served.server.start()
    assert served.answering() == "v3"


def test_a_new_system_starts_with_the_champion_or_else_with_the_shipped_model(served: Served) -> None:
    served.publish("v4", seed=4)
    for champion, archives in (("v4", 1), ("gone", 2)):
        served.promote(champion)
        fresh = Reconciler(
            served.directory.parent / "fresh",
            served.records,
            served.store,
            Management("http://127.0.0.1:1"),
            served.said.append,
        )
        spec = fresh.prepare(TorchServePorts(1, 2, 3, 4, 5))
        spec.temporary.rmdir()
        assert len(list((served.directory.parent / "fresh").rglob("*.mar"))) == archives
    assert served.said == [f"starting with the shipped model: there is no version gone in {served.store}"]


def test_a_version_that_is_not_there_changes_nothing_until_it_is(served: Served) -> None:
    served.promote("v5")
    for _ in range(2):
        with pytest.raises(StoreError, match="there is no version v5"):
            served.step()
        assert served.answering() == "tiny-1"
    served.publish("v5", seed=5)
    served.step()
    assert served.answering() == "v5"


def test_a_version_that_cannot_be_loaded_is_tried_once_and_changes_nothing(served: Served) -> None:
    served.publish_broken("broken")
    served.promote("broken")
    with pytest.raises(NotLoadedError, match="Failed to start workers"):
        served.step()
    served.step()  # not again
    assert (served.answering(), served.loaded()) == ("tiny-1", ["tiny-1"])
    served.publish("v6", seed=6)
    served.promote("v6")
    served.step()
    assert served.answering() == "v6"


def test_what_goes_wrong_is_said_once_and_looked_at_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabwafer_local.rollout.LOOK_SECONDS", 0.01)
    served.promote("v7")

    async def watched() -> list[str]:
        said: asyncio.Queue[str] = asyncio.Queue()
        management = Management(served.server.management)
        reconciler = Reconciler(served.directory, served.records, served.store, management, said.put_nowait)
        running = asyncio.create_task(reconciler.run())
        first = await said.get()
        await asyncio.sleep(0.3)
        served.publish("v7", seed=7)
        second = await said.get()
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
    assert served.said == ["model v9 is on trial from now on"]


def test_a_candidate_that_is_promoted_takes_over_and_the_champion_before_it_can_be_tried(served: Served) -> None:
    served.publish("v10", seed=10)
    served.try_out("v10")
    served.step()
    served.try_out("tiny-1", champion="v10")
    for _ in range(2):
        served.step()
    assert (served.answering(), sorted(served.loaded())) == ("v10", ["tiny-1", "v10"])
    assert served.said == [
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
    served.try_out("broken-candidate", champion="v12")
    for _ in range(2):
        served.step()
    assert (served.answering(), served.loaded()) == ("v12", ["v12"])


class UnreadableStore(FolderStore):
    """A store whose volume has gone bad."""

    def names(self) -> list[str]:
        raise OSError(5, "Input/output error", self.address)


def test_whatever_goes_wrong_the_looking_goes_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabwafer_local.rollout.LOOK_SECONDS", 0.01)
    served.promote("v8")

    async def watched() -> str:
        said: asyncio.Queue[str] = asyncio.Queue()
        store, management = UnreadableStore(Path("bad")), Management(served.server.management)
        running = asyncio.create_task(
            Reconciler(served.directory, served.records, store, management, said.put_nowait).run()
        )
        first = await said.get()
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
        return first

    said = asyncio.run(asyncio.wait_for(watched(), 60))
    assert said == "the model stays as it is: [Errno 5] Input/output error: 'bad'"
    assert served.answering() == "tiny-1"


def test_a_server_that_does_not_answer_is_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabwafer_local.rollout.LOOK_SECONDS", 0.01)
    nobody = Reconciler(
        served.directory, served.records, served.store, Management("http://127.0.0.1:1"), served.said.append
    )

    async def watched() -> None:
        running = asyncio.create_task(nobody.run())
        await asyncio.sleep(0.3)
        assert not running.done()
        running.cancel()

    asyncio.run(watched())
    assert served.said == []
