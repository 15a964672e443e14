"""Smoke tests that have ended: what of them is still on its way is not recorded any more."""

from fabwafer.messages.bodies import ImageMetadata, Prediction
from fabwafer.messages.topics import SMOKE_TEST_FAB


class EndedTests:
    """The cameras of smoke tests that were revoked.

    A smoke test deletes its records at its end. The model server may answer for its image after that, when it was away.
    """

    def __init__(self) -> None:
        self._cameras: set[str] = set()

    def add(self, fab: str, camera: str) -> None:
        """Take note of a camera that was revoked; one of another fab does not matter."""
        if fab == SMOKE_TEST_FAB:
            self._cameras.add(camera)

    def include(self, message: ImageMetadata | Prediction) -> bool:
        """Return whether a message is of a smoke test that has ended."""
        return message.fab == SMOKE_TEST_FAB and message.camera in self._cameras
