"""Who serves, made true: the model server has the champion and the candidate that the records name, and no other."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp

from fabwafer.errors import FabwaferError
from fabwafer.models.archive import MODEL_NAME
from fabwafer.models.card import ModelRefusedError, read_card
from fabwafer.models.shipped import default_model
from fabwafer.models.store import Store, StoreError
from fabwafer.records import Records, RecordsUnavailableError
from fabwafer_local import torchserve
from fabwafer_local.supervisor import ServerSpec

LOOK_SECONDS: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Between two tries for a version that cannot be had; the store may be another machine's."""
LOAD_SECONDS: Final = 150.0
"""Longer than the archive allows a worker to start."""


class NotLoadedError(FabwaferError):
    """The model server does not do what it was asked. The text says what it was, and what the server said."""


class Management:
    """TorchServe's management API, for the one model that it serves.

    Every method raises NotLoadedError when the server refuses, and aiohttp.ClientError or TimeoutError when it does not
    answer: it may be starting again.

    Args:
        url: `http://HOST:PORT`.
    """

    def __init__(self, url: str) -> None:
        self._models = f"{url}/models"
        self._model = f"{self._models}/{MODEL_NAME}"
        self.port = urlsplit(url).port or 0

    async def versions(self) -> tuple[str, list[str]]:
        """Returns the version that answers, and all that are loaded."""
        (answering,) = await self._ask("GET", self._model)
        loaded = await self._ask("GET", f"{self._model}/all")
        return answering["modelVersion"], [one["modelVersion"] for one in loaded]

    async def load(self, archive: str) -> None:
        """Loads an archive of the server's model store beside what it serves; returns when it could answer."""
        asked = {"model_name": MODEL_NAME, "url": archive, "initial_workers": "1", "synchronous": "true"}
        await self._ask("POST", self._models, asked)

    async def answer_with(self, version: str) -> None:
        """Makes a loaded version the one that answers."""
        await self._ask("PUT", f"{self._model}/{quote(version, safe='')}/set-default")

    async def drop(self, version: str) -> None:
        """Ends a version that does not answer."""
        await self._ask("DELETE", f"{self._model}/{quote(version, safe='')}")

    async def _ask(self, method: str, url: str, parameters: dict[str, str] | None = None) -> Any:
        timeout = aiohttp.ClientTimeout(total=LOAD_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.request(method, url, params=parameters) as response,
        ):
            if response.status != HTTPStatus.OK:
                said = (await response.text()).strip()
                raise NotLoadedError(f"the model server refused {method} {response.url.path}: {said}")
            return await response.json(content_type=None)


class Reconciler:
    """Brings the model server to the champion, and to the candidate on trial beside it.

    Another champion is loaded beside the one that serves, takes over when it can answer, and only then does the other
    end: no image waits. A version that cannot be had or loaded is told of, and changes nothing.

    Args:
        directory: The model server's, see `torchserve.prepare`.
        records: They name champion and candidate.
        store: It holds the versions.
        management: The model server's.
        say: Tells the user what happens, a line at a time.
    """

    def __init__(
        self, directory: Path, records: Records, store: Store, management: Management, say: Callable[[str], None]
    ) -> None:
        self._directory, self._records, self._store = directory, records, store
        self._management, self._say = management, say
        self._said = ""
        self._refused: set[str] = set()

    def prepare(self, ports: torchserve.TorchServePorts) -> ServerSpec:
        """Prepares a model server that starts with the champion, or with the shipped model where that cannot be had.

        Raises:
            ModelRefusedError: The shipped model cannot be used.
            OSError: An archive cannot be written.
        """
        try:
            champion, _ = self._wanted()
            with self._folder(champion) as folder:
                return torchserve.prepare(self._directory, folder, ports)
        except (RecordsUnavailableError, StoreError) as error:
            self._complain(f"starting with the shipped model: {error}")
            return torchserve.prepare(self._directory, default_model(), ports)

    async def run(self) -> None:
        """Looks again and again; does not return."""
        pause = LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await self.step()
                pause = LOOK_SECONDS
            except (aiohttp.ClientError, TimeoutError):
                continue
            # Whatever it is, a full disk for example: what serves must not end of it.
            except (ModelRefusedError, RecordsUnavailableError, StoreError, OSError, ValueError) as error:
                self._complain(f"the model stays as it is: {error}")
                pause = min(LONGEST_PAUSE, 2 * pause)

    async def step(self) -> None:
        """Does what is next, if anything is: makes the champion answer, ends what no longer does, loads the candidate.

        Raises:
            ModelRefusedError: The shipped model, which is to serve, cannot be used.
            NotLoadedError: The model server refuses a version.
            RecordsUnavailableError: The records do not answer.
            StoreError: A version cannot be had from the store.
            aiohttp.ClientError: The model server does not answer; so does TimeoutError.
        """
        champion, candidate = await asyncio.to_thread(self._wanted)
        # The files of a version that was refused will not change: it is not tried again before another was wanted.
        self._refused &= {champion, candidate}
        answering, loaded = await self._management.versions()
        if champion != answering and champion not in self._refused:
            archive = await self._load(champion, loaded)
            await self._management.answer_with(champion)
            torchserve.load_at_start(self._directory, archive)
            self._say(f"model {champion} serves from now on, before it {answering}")
            return
        # Those that answered before have had since the last look to finish what they were asked.
        for version in loaded:
            if version not in {answering, candidate}:
                await self._management.drop(version)
        if candidate and candidate not in {*loaded, *self._refused}:
            await self._load(candidate, loaded)
            self._say(f"model {candidate} is on trial from now on")
        if not self._refused:
            self._said = ""

    async def _load(self, version: str, loaded: Sequence[str]) -> Path:
        archive = await asyncio.to_thread(self._archive, version)
        if version not in loaded:
            try:
                await self._management.load(archive.name)
            except NotLoadedError:
                self._refused.add(version)
                raise
        return archive

    def _wanted(self) -> tuple[str, str | None]:
        """The versions that are to serve and to be tried."""
        said = self._records.rollout()
        champion = said.champion if said else None
        return champion or read_card(default_model()).version, said.candidate if said else None

    def _archive(self, version: str) -> Path:
        with self._folder(version) as folder:
            return torchserve.archive(self._directory, folder)

    @contextlib.contextmanager
    def _folder(self, version: str) -> Iterator[Path]:
        if version == read_card(default_model()).version:
            yield default_model()
            return
        with tempfile.TemporaryDirectory(prefix="fabwafer-version-") as here:
            yield self._store.fetch(version, Path(here))

    def _complain(self, sentence: str) -> None:
        """Says it once: the next tries most likely fail of the same."""
        if sentence != self._said:
            self._say(sentence)
        self._said = sentence
