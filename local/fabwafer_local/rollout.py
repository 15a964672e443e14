"""Who serves, made true: the model server answers with the champion that the records name, whatever it had before."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp

from fabwafer.modelcard import ModelRefusedError, default_model, read_card
from fabwafer.modelstore import Store, StoreError
from fabwafer.records import Records, RecordsUnavailableError
from fabwafer_local import torchserve
from fabwafer_local.supervisor import ServerSpec

LOOK_SECONDS: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Between two tries for a version that cannot be had; the store may be another machine's."""
LOAD_SECONDS: Final = 150.0
"""Longer than the archive allows a worker to start."""


class NotLoadedError(RuntimeError):
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
        self._model = f"{self._models}/{torchserve.MODEL_NAME}"
        self.port = urlsplit(url).port or 0

    async def versions(self) -> tuple[str, list[str]]:
        """Returns the version that answers, and all that are loaded."""
        (answering,) = await self._ask("GET", self._model)
        loaded = await self._ask("GET", f"{self._model}/all")
        return answering["modelVersion"], [one["modelVersion"] for one in loaded]

    async def load(self, archive: str) -> None:
        """Loads an archive of the server's model store beside what it serves; returns when it could answer."""
        asked = {"model_name": torchserve.MODEL_NAME, "url": archive, "initial_workers": "1", "synchronous": "true"}
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
    """Brings the model server to the champion.

    Another version is loaded beside the one that serves, takes over when it can answer, and only then does the other
    end: no image waits. A version that cannot be had or loaded is told of, and changes nothing.

    Args:
        directory: The model server's, see `torchserve.prepare`.
        records: They name the champion.
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
        self._refused: str | None = None

    def prepare(self, ports: torchserve.TorchServePorts) -> ServerSpec:
        """Prepares a model server that starts with the champion, or with the shipped model where that cannot be had.

        Raises:
            ModelRefusedError: The shipped model cannot be used.
            RuntimeError: An archive could not be built.
        """
        try:
            with self._folder(self._champion()) as folder:
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
            except (ModelRefusedError, RecordsUnavailableError, StoreError, OSError, RuntimeError, ValueError) as error:
                self._complain(f"the model stays as it is: {error}")
                pause = min(LONGEST_PAUSE, 2 * pause)

    async def step(self) -> None:
        """Does what is next, if anything is: makes the champion answer, or ends versions that no longer do.

        Raises:
            ModelRefusedError: The shipped model, which is to serve, cannot be used.
            NotLoadedError: The model server refuses the champion.
            RecordsUnavailableError: The records do not answer.
            StoreError: The champion cannot be had from the store.
            aiohttp.ClientError: The model server does not answer; so does TimeoutError.
        """
        champion = await asyncio.to_thread(self._champion)
        answering, loaded = await self._management.versions()
        wanted = champion or read_card(default_model()).version
        if wanted == answering:
            # Those that answered before have had since the last look to finish what they were asked.
            for version in loaded:
                if version != answering:
                    await self._management.drop(version)
            self._said, self._refused = "", None
            return
        if wanted == self._refused:
            return
        archive = await asyncio.to_thread(self._archive, champion)
        if wanted not in loaded:
            try:
                await self._management.load(archive.name)
            except NotLoadedError:
                self._refused = wanted  # its files will not change: it is not tried again before another was wanted
                raise
        await self._management.answer_with(wanted)
        torchserve.load_at_start(self._directory, archive)
        self._say(f"model {wanted} serves from now on, before it {answering}")

    def _champion(self) -> str | None:
        """The version that is to serve; None for the shipped one."""
        said = self._records.rollout()
        return said.champion if said else None

    def _archive(self, champion: str | None) -> Path:
        with self._folder(champion) as folder:
            return torchserve.archive(self._directory, folder)

    @contextlib.contextmanager
    def _folder(self, champion: str | None) -> Iterator[Path]:
        if champion is None:
            yield default_model()
            return
        with tempfile.TemporaryDirectory(prefix="fabwafer-version-") as here:
            yield self._store.fetch(champion, Path(here))

    def _complain(self, sentence: str) -> None:
        """Says it once: the next tries most likely fail of the same."""
        if sentence != self._said:
            self._say(sentence)
        self._said = sentence
