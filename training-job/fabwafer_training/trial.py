"""How a trial goes: where candidate and champion differ, and who is right by what people said."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fabwafer.records import Compared


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial has shown so far.

    Attributes:
        images: How many both answered.
        agreed: On how many of them they named the same class.
        differing: The champion's class, the candidate's, and on how many images; the most frequent first.
        reviewed: How many of the images people reviewed.
        champion_right: On how many of these the champion named the class that people did.
        candidate_right: On how many the candidate did.
    """

    images: int
    agreed: int
    differing: list[tuple[str, str, int]]
    reviewed: int
    champion_right: int
    candidate_right: int


def outcome(compared: Sequence[Compared]) -> Outcome:
    """Counts what champion and candidate said of the same images."""
    differing = Counter((one.champion, one.candidate) for one in compared if one.champion != one.candidate)
    reviewed = [one for one in compared if one.review is not None]
    return Outcome(
        images=len(compared),
        agreed=len(compared) - differing.total(),
        differing=[(*pair, count) for pair, count in sorted(differing.items(), key=lambda item: (-item[1], item[0]))],
        reviewed=len(reviewed),
        champion_right=sum(one.champion == one.review for one in reviewed),
        candidate_right=sum(one.candidate == one.review for one in reviewed),
    )
