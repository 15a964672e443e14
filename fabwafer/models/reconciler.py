"""The reconciler: brings what serves to the champion and the candidate that the records name, again and again.

On one machine it drives a `ModelServer`, TorchServe by its management API (`fabwafer_handlers.management`). In a
cluster Kubernetes starts and ends the servers: `fabwafer.models.kubernetes`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fabwafer.errors import FabwaferError
from fabwafer.models.model_server import ModelServer, NotLoadedError, ServerUnavailableError
from fabwafer.models.rollout import current, refuse
from fabwafer.records import Records
from fabwafer.service.backoff import Backoff

LOOK_SECONDS: Final = 1.0
"""Pause between two looks at the records."""
LONGEST_PAUSE: Final = 30.0
"""Longest pause after failures; the store may be on another machine, and out of reach for long."""


class ReconcileLoop:
    """Reconciles again and again, whatever fails.

    Args:
        step: Does the next thing, if anything is to be done.
        say: Called with a sentence for people on each new failure.
        look_seconds: Pause between two steps.

    Attributes:
        trouble: Why the last step failed, or None.
    """

    def __init__(
        self, step: Callable[[], Awaitable[None]], say: Callable[[str], None], look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._step, self._say, self._look_seconds = step, say, look_seconds
        self.trouble: str | None = "it has not looked yet which version is to serve"

    async def run(self) -> None:
        """Reconcile; return only when cancelled."""
        backoff = Backoff(self._look_seconds, LONGEST_PAUSE)
        reported = ""
        while True:
            await backoff.wait()
            try:
                await self._step()
            except ServerUnavailableError as error:
                self.trouble = str(error)
                backoff.reset()
            # Whatever it is, a full disk for example, the version that answers must go on answering.
            except Exception as error:
                self.trouble = str(error) if isinstance(error, (FabwaferError, OSError)) else repr(error)
                if self.trouble != reported:  # most retries fail for the same reason
                    self._say(f"the model stays as it is: {self.trouble}")
                reported = self.trouble
            else:
                self.trouble = None
                reported = ""
                backoff.reset()


class Reconciler:
    """Brings a model server to the champion, and to the candidate on trial beside it.

    A new champion is loaded beside the old one, takes over when it can answer, and only then the old one is unloaded:
    no request waits. A version that the server refuses is recorded as refused, with the reason, and the one that
    answers is the champion again; one that is missing in the store is reported and changes nothing. What others changed
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
        self._loop = ReconcileLoop(self.step, say, look_seconds)

    async def run(self) -> None:
        """Reconcile again and again; return only when cancelled."""
        await self._loop.run()

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
        loaded = await self._server.loaded()
        answering = loaded.answering
        if champion != answering:
            try:
                if champion not in loaded.versions:
                    await self._server.load(champion)
                elif champion in loaded.without_workers:
                    await self._server.start_worker(champion)
            except NotLoadedError as error:
                if answering is not None:  # where nothing answers, nothing is lost by another try
                    await asyncio.to_thread(refuse, self._records, rollout, champion, str(error), champion=answering)
                raise
            await self._server.answer_with(champion)
            self._say(f"model {champion} serves from now on, before it {answering or 'none'}")
            return
        # Versions that answered until the last step have had time since then to finish their requests.
        for version in loaded.versions:
            if version not in {answering, candidate}:
                await self._server.drop(version)
            elif version in loaded.without_workers:
                try:
                    await self._server.start_worker(version)
                except NotLoadedError as error:
                    if version == candidate:
                        await asyncio.to_thread(refuse, self._records, rollout, version, str(error), champion=champion)
                    raise
                self._say(f"model {version} had no worker left; it answers again")
        if candidate and candidate not in loaded.versions:
            try:
                await self._server.load(candidate)
            except NotLoadedError as error:
                await asyncio.to_thread(refuse, self._records, rollout, candidate, str(error), champion=champion)
                raise
            self._say(f"model {candidate} is on trial from now on")
