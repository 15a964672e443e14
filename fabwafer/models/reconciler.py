"""The reconciler: brings a model server to the champion and the candidate that the records name.

It drives any `ModelServer`: on one machine TorchServe by its management API (`fabwafer_handlers.management`), in a
cluster Kubernetes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from fabwafer.errors import FabwaferError
from fabwafer.models.model_server import ModelServer, NotLoadedError, ServerUnavailableError
from fabwafer.models.rollout import current
from fabwafer.records import Records
from fabwafer.service.backoff import Backoff

LOOK_SECONDS: Final = 1.0
"""Pause between two looks at the records."""
LONGEST_PAUSE: Final = 30.0
"""Longest pause after failures; the store may be on another machine, and out of reach for long."""


class Reconciler:
    """Brings a model server to the champion, and to the candidate on trial beside it.

    A new champion is loaded beside the old one, takes over when it can answer, and only then the old one is unloaded:
    no request waits. A version that is missing or cannot be loaded is reported and changes nothing. What others changed
    on the server is repaired: a model that was removed, workers that were stopped, another version that answers.

    Args:
        records: They name champion and candidate.
        server: The model server.
        say: Called with a sentence for people on each change and each new failure.
        look_seconds: Pause between two looks at the records.
    """

    def __init__(
        self, records: Records, server: ModelServer, say: Callable[[str], None], look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._records, self._server, self._say = records, server, say
        self._look_seconds = look_seconds
        self._reported = ""
        self._refused: set[str] = set()

    async def run(self) -> None:
        """Reconcile again and again; return only when cancelled."""
        backoff = Backoff(self._look_seconds, LONGEST_PAUSE)
        while True:
            await backoff.wait()
            try:
                await self.step()
            except ServerUnavailableError:
                backoff.reset()
            # Whatever it is, a full disk for example, the version that answers must go on answering.
            except Exception as error:
                reason = str(error) if isinstance(error, (FabwaferError, OSError)) else repr(error)
                self._report(f"the model stays as it is: {reason}")
            else:
                backoff.reset()

    async def step(self) -> None:
        """Do the next thing, if anything is to be done: switch to the champion, or unload, repair, load the candidate.

        Raises:
            NotLoadedError: The model server refuses a version.
            RecordsUnavailableError: The records do not answer.
            RolloutError: The records name no champion.
            ServerUnavailableError: The model server does not answer.
            StoreError: A version is not in the store, or it is damaged.
        """
        rollout = await asyncio.to_thread(current, self._records)
        champion, candidate = rollout.champion, rollout.candidate
        # The files of a refused version do not change, so it is tried again only after another version was wanted.
        self._refused &= {champion, candidate}
        loaded = await self._server.loaded()
        answering = loaded.answering
        # Where nothing answers, nothing is lost by another try.
        if champion != answering and (champion not in self._refused or answering is None):
            if champion not in loaded.versions:
                await self._load(champion)
            elif champion in loaded.without_workers:
                await self._server.start_worker(champion)
            await self._server.answer_with(champion)
            self._say(f"model {champion} serves from now on, before it {answering or 'none'}")
            return
        # Versions that answered until the last step have had time since then to finish their requests.
        for version in loaded.versions:
            if version not in {answering, candidate}:
                await self._server.drop(version)
            elif version in loaded.without_workers:
                await self._server.start_worker(version)
                self._say(f"model {version} had no worker left; it answers again")
        if candidate and candidate not in {*loaded.versions, *self._refused}:
            await self._load(candidate)
            self._say(f"model {candidate} is on trial from now on")
        if not self._refused:
            self._reported = ""

    async def _load(self, version: str) -> None:
        try:
            await self._server.load(version)
        except NotLoadedError:
            self._refused.add(version)
            raise

    def _report(self, sentence: str) -> None:
        """Say a sentence unless it was the last one: most retries fail for the same reason."""
        if sentence != self._reported:
            self._say(sentence)
        self._reported = sentence
