"""What the reconciler asks of a model server, whichever it is."""

from dataclasses import dataclass
from typing import Protocol

from fabwafer.errors import FabwaferError


class NotLoadedError(FabwaferError):
    """The model server refused a request. The text says which, and the server's reason."""


class ServerUnavailableError(FabwaferError):
    """The model server did not answer; it may be starting. The text says what happened."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a model server holds.

    Attributes:
        answering: The version that answers requests, or None where there is none.
        versions: All versions that are loaded.
        without_workers: Those of them that nothing would answer for, since they have no worker.
    """

    answering: str | None
    versions: tuple[str, ...]
    without_workers: tuple[str, ...] = ()


class ModelServer(Protocol):
    """What the reconciler asks of a model server.

    Each method raises NotLoadedError when the server refuses, and ServerUnavailableError when it does not answer.
    """

    async def loaded(self) -> Loaded:
        """Return what the server holds."""

    async def load(self, version: str) -> None:
        """Load a version from the store beside what answers; return when it could answer.

        Raises:
            StoreError: The version is not in the store, or it is damaged.
        """

    async def answer_with(self, version: str) -> None:
        """Let a loaded version answer all requests, now and after a restart of the server.

        Raises:
            StoreError: The version is not in the store, or it is damaged.
        """

    async def start_worker(self, version: str) -> None:
        """Give a loaded version without workers one; return when it could answer."""

    async def drop(self, version: str) -> None:
        """Unload a version that does not answer."""
