"""What the reconciler asks of a model server, whichever it is."""

from typing import Protocol

from fabwafer.errors import FabwaferError


class NotLoadedError(FabwaferError):
    """The model server refused a request. The text says which, and the server's reason."""


class ServerUnavailableError(FabwaferError):
    """The model server did not answer; it may be starting. The text says what happened."""


class ModelServer(Protocol):
    """What the reconciler asks of a model server.

    Each method raises NotLoadedError when the server refuses, and ServerUnavailableError when it does not answer.
    """

    async def versions(self) -> tuple[str, list[str]]:
        """Return the version that answers requests, and all that are loaded."""

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

    async def drop(self, version: str) -> None:
        """Unload a version that does not answer."""
