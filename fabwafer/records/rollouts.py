"""Rollouts: which model versions are to serve and to be tried. The newest one holds; they are never changed."""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, select, text

from fabwafer.errors import FabwaferError
from fabwafer.records.tables import rollouts

_COLUMNS: Final = ("champion", "candidate", "share", "author", "time", "refused", "reason")


class RolloutChangedError(FabwaferError):
    """Another rollout was set in the meantime; the one that was to be set may be wrong now."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Which versions are to serve: desired state. `share` of the images goes to the candidate as well; `time` in ms.

    `number` grows with each rollout; 0 is before the first. A rollout that was set because a version could not serve
    names it as `refused`, with the `reason`.
    """

    champion: str
    candidate: str | None
    share: float
    author: str
    time: int
    refused: str | None = None
    reason: str | None = None
    number: int = field(default=0, compare=False)


def read_newest_rollout(connection: Connection) -> Rollout | None:
    """Read the rollout that holds, or None when nobody set one yet."""
    return next(iter(_read(connection, limit=1)), None)


def read_rollouts(connection: Connection) -> list[Rollout]:
    """Read all rollouts, the newest first."""
    return _read(connection, limit=None)


def add_rollout(connection: Connection, rollout: Rollout, after: int | None) -> None:
    """Add a rollout, which holds from now on; the database numbers it.

    Args:
        connection: A transaction that writes.
        rollout: The new one.
        after: The number of the rollout that it was decided on; None does not ask whether another came in between.

    Raises:
        RolloutChangedError: Another rollout came after that one.
    """
    if after is not None:
        _refuse_if_changed(connection, after)
    row = {name: getattr(rollout, name) for name in _COLUMNS}
    connection.execute(rollouts.insert().values(row))


def _read(connection: Connection, limit: int | None) -> list[Rollout]:
    statement = select(rollouts).order_by(rollouts.c.id.desc()).limit(limit)
    return [
        Rollout(**{name: getattr(row, name) for name in _COLUMNS}, number=row.id)
        for row in connection.execute(statement)
    ]


def _refuse_if_changed(connection: Connection, after: int) -> None:
    """Raise RolloutChangedError where another rollout came in between; until the transaction ends, none can."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        connection.execute(text("LOCK TABLE rollouts IN EXCLUSIVE MODE"))
    last = read_newest_rollout(connection)
    if last is not None and last.number != after:
        raise RolloutChangedError(
            f"{last.author} has just set another rollout (champion {last.champion}, "
            f"candidate {last.candidate or 'none'}): look again, and repeat yours if it is still right"
        )
