"""The champions that a rollback can go back to."""

from collections.abc import Sequence

from fabwafer.records.rollouts import Rollout


def earlier_champions(rollouts: Sequence[Rollout]) -> list[str]:
    """Return the champions to go back to, the nearest first.

    Naming an earlier champion, by a rollback or a promotion, leaves all that came after it for good: so going back
    twice goes one further back, and never returns to a version that was left. It comes back only by its name.

    Args:
        rollouts: All of them, the newest first.
    """
    line: list[str] = []
    for rollout in reversed(rollouts):
        if rollout.champion in line:
            del line[line.index(rollout.champion) + 1 :]
        else:
            line.append(rollout.champion)
    return line[:-1][::-1]
