"""TorchServe's management API: which versions of the model it holds, and which of them answers."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from fabwafer.messages.inference import MODEL_NAME
from fabwafer.models.key_file import authorization
from fabwafer.models.model_server import Loaded, NotLoadedError, ServerUnavailableError

TIMEOUT_SECONDS: Final = 150.0
"""Longer than the archive's startupTimeout for a worker."""
_NO_MODEL: Final = "ModelNotFoundException"
_INVALID_KEY: Final = "InvalidKeyException"


class Management:
    """The management API, for the one model that the server has.

    Every method raises NotLoadedError when the server refuses, and ServerUnavailableError when it does not answer.

    Args:
        url: `http://HOST:PORT`.
        key_file: The server's key file; None where it asks for no token.
    """

    def __init__(self, url: str, key_file: Path | None) -> None:
        self._models = f"{url}/models"
        self._model = f"{self._models}/{MODEL_NAME}"
        self._key_file = key_file

    async def loaded(self) -> Loaded:
        """Return what the server holds."""
        try:
            (answering,) = await self._request("GET", self._model)
            versions = await self._request("GET", f"{self._model}/all")
        except NotLoadedError as error:
            if _NO_MODEL in str(error):
                return Loaded(None, ())
            raise
        return Loaded(
            answering["modelVersion"],
            tuple(one["modelVersion"] for one in versions),
            tuple(one["modelVersion"] for one in versions if not one["workers"]),
        )

    async def load(self, archive: str) -> None:
        """Load an archive of the server's model store beside what answers; return when it could answer.

        Args:
            archive: The archive's file name.
        """
        parameters = {"model_name": MODEL_NAME, "url": archive, "initial_workers": "1", "synchronous": "true"}
        await self._request("POST", self._models, parameters)

    async def answer_with(self, version: str) -> None:
        """Let a loaded version answer all requests."""
        await self._request("PUT", f"{self._model}/{quote(version, safe='')}/set-default")

    async def start_worker(self, version: str) -> None:
        """Give a loaded version without workers one; return when it could answer."""
        parameters = {"min_worker": "1", "max_worker": "1", "synchronous": "true"}
        await self._request("PUT", f"{self._model}/{quote(version, safe='')}", parameters)

    async def drop(self, version: str) -> None:
        """Unload a version that does not answer."""
        await self._request("DELETE", f"{self._model}/{quote(version, safe='')}")

    async def _request(self, method: str, url: str, parameters: dict[str, str] | None = None) -> Any:
        headers = authorization(self._key_file, "management")
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as http,
                http.request(method, url, params=parameters, headers=headers) as response,
            ):
                if response.status != HTTPStatus.OK:
                    reason = (await response.text()).strip()
                    if _INVALID_KEY in reason:  # that of the server before; this one has just started
                        raise ServerUnavailableError(f"the model server took no token for {method} {response.url.path}")
                    raise NotLoadedError(f"the model server refused {method} {response.url.path}: {reason}")
                return await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerUnavailableError(f"the model server did not answer {method} {url}: {error!r}") from None


class TorchServe:
    """A TorchServe as the reconciler drives it (`fabwafer.models.model_server.ModelServer`).

    Args:
        management: Its management API.
        archive: Returns the archive of a version in the server's model store, building it where it is missing.
        load_at_start: Lets the server load an archive at its next start.
    """

    def __init__(
        self, management: Management, archive: Callable[[str], Path], load_at_start: Callable[[Path], None]
    ) -> None:
        self._management, self._archive, self._load_at_start = management, archive, load_at_start

    async def loaded(self) -> Loaded:
        """Return what the server holds."""
        return await self._management.loaded()

    async def load(self, version: str) -> None:
        """Load a version beside what answers; return when it could answer."""
        archive = await asyncio.to_thread(self._archive, version)
        await self._management.load(archive.name)

    async def answer_with(self, version: str) -> None:
        """Let a loaded version answer all requests, now and after a restart of the server."""
        archive = await asyncio.to_thread(self._archive, version)
        # First: a server that restarts before the next request then loads this version.
        await asyncio.to_thread(self._load_at_start, archive)
        await self._management.answer_with(version)

    async def start_worker(self, version: str) -> None:
        """Give a loaded version without workers one; return when it could answer."""
        await self._management.start_worker(version)

    async def drop(self, version: str) -> None:
        """Unload a version that does not answer."""
        await self._management.drop(version)
