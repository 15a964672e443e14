"""The model server's archives on this machine: made from the versions in the store, and which is loaded at a start."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from fabwafer.models import rollout
from fabwafer.models.card import ModelRefusedError
from fabwafer.models.setup import set_up
from fabwafer.models.store import Store, StoreError
from fabwafer.records import Records
from fabwafer_local import torchserve


class Archives:
    """The archives in the model server's directory.

    Args:
        directory: The model server's, see `torchserve.prepare`.
        store: It holds the versions.
    """

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory, self._store = directory, store

    def of(self, version: str) -> Path:
        """Return the archive of a version, built where it is missing.

        Raises:
            StoreError: The version is not in the store, or it is damaged.
        """
        with tempfile.TemporaryDirectory(prefix="fabwafer-version-") as folder:
            return torchserve.build_archive(self._directory, self._store.fetch(version, Path(folder)))

    def load_at_start(self, archive: Path) -> None:
        """Let the model server load an archive at its next start."""
        torchserve.load_at_start(self._directory, archive)

    def at_start(self, records: Records, say: Callable[[str], None]) -> Path:
        """Return the archive that a model server is to start with, after the set-up of the models.

        It is the champion's. Where the champion cannot be had from the store it is the one that was loaded last: a
        system starts while its store is out of reach.

        Args:
            records: They name the champion.
            say: Called with a sentence on whatever people should know.

        Raises:
            ModelRefusedError: This release's model, which is to be the first champion, is not complete.
            OSError: The archive cannot be written.
            RecordsUnavailableError: The records do not answer.
            StoreError: The champion cannot be had, and no archive was loaded before.
        """
        first_start = records.rollout() is None
        try:
            for sentence in set_up(records, self._store):
                say(sentence)
        except (ModelRefusedError, StoreError) as error:
            if first_start:
                raise
            say(f"this release's model cannot be added to the store: {error}")
        try:
            return self.of(rollout.current(records).champion)
        except StoreError as error:
            last = torchserve.loaded_at_start(self._directory)
            if last is None:
                raise
            say(f"starting with the model that was loaded last: {error}")
            return last
