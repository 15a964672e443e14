"""The rollout: which version is the champion, which is the candidate on trial, and how that changes.

Champion, candidate and share are desired state in the records. The functions here read and write it; the reconciler
(`fabwafer.models.reconciler`) brings the model server to it. Every change is a new entry, so the history stays.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fabwafer.errors import FabwaferError
from fabwafer.models.store import DamagedError, Store, StoreError, checked_version
from fabwafer.records import Compared, Records, Rollout, RolloutChangedError

TRIAL_SHARE: Final = 0.1
"""Share of the images that goes to a candidate where nobody names another."""
AUTHOR: Final = "fabwafer"
"""Who names the first champion and refuses versions that cannot serve, in the history of the rollout."""


class RolloutError(FabwaferError):
    """A change of the rollout that cannot be made. The text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of the rollout did.

    Attributes:
        before: The rollout before; None where none was named yet.
        after: The rollout now; equal to `before` where it was as asked already.
        passed_over: One sentence on each earlier champion that a rollback could not return to.
    """

    before: Rollout | None
    after: Rollout
    passed_over: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What a trial has shown so far.

    Attributes:
        candidate: The version on trial.
        images: Number of images that both it and the champion answered.
        agreed: On how many of them both named the same class.
        differing: The champion's class, the candidate's, and the number of images; the most frequent first.
        reviewed: How many of the images have a review.
        champion_right: On how many of these the champion named the reviewed class.
        candidate_right: On how many the candidate did.
    """

    candidate: str
    images: int
    agreed: int
    differing: list[tuple[str, str, int]]
    reviewed: int
    champion_right: int
    candidate_right: int


def current(records: Records) -> Rollout:
    """Return the rollout.

    Raises:
        RolloutError: No champion was named yet.
    """
    rollout = records.rollout()
    if rollout is None:
        raise RolloutError(
            "the records name no champion yet: the first `fabwafer up` names the shipped model, "
            "or name one with `fabwafer model promote VERSION`"
        )
    return rollout


def champion_folder(records: Records, store: Store, to: Path) -> Path:
    """Return a local folder with the champion, checked against its card.

    Args:
        records: They name the champion.
        store: It holds the champion.
        to: A folder to load it into, where the store is not a folder itself.

    Raises:
        RolloutError: No champion was named yet.
        StoreError: The champion is not in the store, or it is damaged.
    """
    return store.fetch(current(records).champion, to)


def promote(records: Records, store: Store, version: str | None = None, *, author: str) -> Change:
    """Make a version the champion; its own trial ends with that, another version's goes on.

    Args:
        records: Where the change is written.
        store: Where the version must be.
        version: The version; by default the candidate.
        author: Who decides it.

    Raises:
        RolloutChangedError: Somebody else changed the rollout at the same time; nothing was written.
        RolloutError: No version is named, and none is on trial.
        StoreError: The version is not in the store, or it is damaged.
    """
    before = records.rollout()
    chosen = version or (before.candidate if before else None)
    if chosen is None:
        raise RolloutError(f"no version is on trial, so name the one to promote; {_versions_in(store)}")
    check_usable(store, chosen)
    if before is None:
        return _change(records, None, chosen, author=author)
    if chosen == before.champion:
        return Change(before, before)
    if before.candidate is None or chosen == before.candidate:
        return _change(records, before, chosen, author=author)
    return _change(records, before, chosen, candidate=before.candidate, share=before.share, author=author)


def roll_back(records: Records, store: Store, *, author: str) -> Change:
    """Return to the champion before the present one, and end the trial.

    A version that is not in the store any more, or is damaged, is passed over. See `earlier_champions` for the order.

    Args:
        records: Where the change is written.
        store: Where the version must be.
        author: Who decides it.

    Raises:
        RolloutChangedError: Somebody else changed the rollout at the same time; nothing was written.
        RolloutError: There is no earlier champion to return to, or no champion was named yet.
        StoreError: The store does not answer.
    """
    before, rollouts = current(records), records.rollouts()
    passed_over: list[str] = []
    for earlier in earlier_champions(rollouts):
        try:
            if earlier in store.names():
                store.check_answers(earlier)
                return _change(records, before, earlier, author=author, passed_over=tuple(passed_over))
            passed_over.append(f"passed over: there is no version {earlier} in {store}")
        except DamagedError as error:
            passed_over.append(f"passed over: {error}")
    left = list(dict.fromkeys(rollout.champion for rollout in rollouts if rollout.champion != before.champion))
    hint = f"; to return to one that was left, promote it by name: {', '.join(left)}" if left else ""
    refusal = f"{before.champion} is to serve, and there is none before it{hint}"
    raise RolloutError("; ".join([*passed_over, refusal]))


def start_trial(records: Records, store: Store, version: str, *, share: float, author: str) -> Change:
    """Make a version the candidate, in place of another.

    Args:
        records: Where the change is written.
        store: Where the version must be.
        version: The version.
        share: Share of the images that goes to it as well, 0 to 1.
        author: Who decides it.

    Raises:
        RolloutChangedError: Somebody else changed the rollout at the same time; nothing was written.
        RolloutError: The version is the champion, the share is out of range, or no champion was named yet.
        StoreError: The version is not in the store, or it is damaged.
    """
    if not 0 <= share <= 1:
        raise RolloutError(f"expected a share of 0 to 1, got {share}")
    before = current(records)
    check_usable(store, version)
    if version == before.champion:
        raise RolloutError(f"{version} is the champion already")
    if (version, share) == (before.candidate, before.share):
        return Change(before, before)
    return _change(records, before, before.champion, candidate=version, share=share, author=author)


def start_first_trial(records: Records, version: str, *, share: float = TRIAL_SHARE, author: str) -> bool:
    """Make a new version the candidate, in place of another; for a program, which must not undo what people decided.

    A version that was candidate or champion before is left as it is, so that the same run again changes nothing. Nor is
    a change undone that somebody makes at this moment.

    Args:
        records: Where the change is written.
        version: The version.
        share: Share of the images that goes to it as well, 0 to 1.
        author: Which program it is.

    Returns:
        Whether the version was made the candidate.

    Raises:
        RolloutError: No champion was named yet.
    """
    while True:
        before, rollouts = current(records), records.rollouts()
        if any(version in (rollout.champion, rollout.candidate) for rollout in rollouts):
            return False
        try:
            _change(records, before, before.champion, candidate=version, share=share, author=author)
        except RolloutChangedError:
            continue
        return True


def end_trial(records: Records, *, author: str) -> Change:
    """End the trial, if there is one.

    Args:
        records: Where the change is written.
        author: Who decides it.

    Raises:
        RolloutChangedError: Somebody else changed the rollout at the same time; nothing was written.
        RolloutError: No champion was named yet.
    """
    before = current(records)
    return _change(records, before, before.champion, author=author) if before.candidate else Change(before, before)


def refuse(records: Records, before: Rollout, version: str, reason: str, *, champion: str) -> None:
    """Record that a version cannot serve, so that it is tried again only when somebody asks for it again.

    Its trial ends; another version's goes on.

    Args:
        records: Where the change is written.
        before: The rollout in which the version is champion or candidate.
        version: The version.
        reason: Why it cannot serve.
        champion: The version that serves, and goes on serving.

    Raises:
        RolloutChangedError: Somebody else changed the rollout at the same time; nothing was written.
    """
    on_trial = before.candidate not in {None, version, champion}
    records.set_rollout(
        champion,
        candidate=before.candidate if on_trial else None,
        share=before.share if on_trial else 0.0,
        author=AUTHOR,
        after=before.number,
        refused=version,
        reason=reason,
    )


def refusals(rollouts: Sequence[Rollout]) -> dict[str, str]:
    """Return the versions that could not serve, with the reasons; not those that somebody asked for again since.

    Args:
        rollouts: All rollouts, the newest first.
    """
    found: dict[str, str] = {}
    for rollout in reversed(rollouts):
        for wanted in (rollout.champion, rollout.candidate):
            found.pop(wanted or "", None)
        if rollout.refused:
            found[rollout.refused] = rollout.reason or ""
    return found


def trial_outcome(records: Records, version: str | None = None) -> TrialOutcome:
    """Compare a candidate's predictions with the champion's on the same images, and both with the reviews.

    Args:
        records: They hold the predictions of both.
        version: A version that is or was on trial; by default the candidate.

    Raises:
        RolloutError: No version is named, and none is on trial.
    """
    rollout = records.rollout()
    chosen = version or (rollout.candidate if rollout else None)
    if chosen is None:
        raise RolloutError("no version is on trial, so name the one to look at")
    return count_outcome(chosen, records.compared(chosen))


def count_outcome(candidate: str, compared: Sequence[Compared]) -> TrialOutcome:
    """Count where candidate and champion agreed, and how often each was right.

    Args:
        candidate: The version on trial.
        compared: The predictions of both, one entry for each image.
    """
    differing = Counter((one.champion, one.candidate) for one in compared if one.champion != one.candidate)
    reviewed = [one for one in compared if one.review is not None]
    return TrialOutcome(
        candidate=candidate,
        images=len(compared),
        agreed=len(compared) - differing.total(),
        differing=[(*pair, count) for pair, count in sorted(differing.items(), key=lambda item: (-item[1], item[0]))],
        reviewed=len(reviewed),
        champion_right=sum(one.champion == one.review for one in reviewed),
        candidate_right=sum(one.candidate == one.review for one in reviewed),
    )


def earlier_champions(rollouts: Sequence[Rollout]) -> list[str]:
    """Return the champions that a rollback can return to, the nearest first.

    Returning to an earlier champion, by a rollback or by promoting it, leaves all later ones behind: a second rollback
    goes one further back and never returns to a version that was left. Such a version is promoted by its name.

    Args:
        rollouts: All rollouts, the newest first.
    """
    line: list[str] = []
    for rollout in reversed(rollouts):
        if rollout.champion in line:
            del line[line.index(rollout.champion) + 1 :]
        else:
            line.append(rollout.champion)
    return line[:-1][::-1]


def check_usable(store: Store, version: str) -> None:
    """Check that a version is in the store, intact, and has finite answers.

    Raises:
        StoreError: It is not. The text names the versions there are.
    """
    try:
        if checked_version(version) in store.names():
            store.check_answers(version)
            return
        reason = f"there is no version {version} in {store}"
    except DamagedError as error:
        reason = str(error)
    raise StoreError(f"{reason}; {_versions_in(store)}")


def _versions_in(store: Store) -> str:
    return f"the versions there are: {', '.join(store.names()) or 'none'}"


def _change(
    records: Records,
    before: Rollout | None,
    champion: str,
    *,
    candidate: str | None = None,
    share: float = 0.0,
    author: str,
    passed_over: tuple[str, ...] = (),
) -> Change:
    """Write a rollout that was decided on seeing `before`."""
    after = before.number if before else 0
    records.set_rollout(champion, candidate=candidate, share=share, author=author, after=after)
    return Change(before, current(records), passed_over)
