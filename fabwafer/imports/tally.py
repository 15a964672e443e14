"""The tally of an import: how many of each kind were new, were there already, or were refused, and why."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["prediction", "image", "review", "row"]
"""What is imported; a `row` is one of which nothing can be told."""

KINDS: Final[tuple[Kind, ...]] = ("prediction", "image", "review", "row")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused: the kind, the place in the export, a word for the reason, and the reason in a sentence."""

    kind: Kind
    place: str
    code: str
    reason: str


@dataclass(slots=True)
class Tally:
    """Counts of an import; each refusal is told as it happens and only counted, so that memory stays bounded.

    Attributes:
        on_refusal: Called with each refusal.
        new: How many of each kind were stored.
        known: How many of each kind were there already.
        refused: How many were refused, by kind and code.
        example: The first refusal of each kind and code.
        uncounted: Images that were stored without counts, since they show no wafer map that can be read for sure.
    """

    on_refusal: Callable[[Refusal], None]
    new: Counter[Kind] = field(default_factory=Counter)
    known: Counter[Kind] = field(default_factory=Counter)
    refused: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    example: dict[tuple[Kind, str], Refusal] = field(default_factory=dict)
    uncounted: int = 0

    def refuse(self, kind: Kind, place: str, code: str, reason: str) -> None:
        """Count a refusal."""
        refusal = Refusal(kind, place, code, reason)
        self.refused[kind, code] += 1
        self.example.setdefault((kind, code), refusal)
        self.on_refusal(refusal)

    def store(self, kind: Kind, tried: int, new: int) -> None:
        """Count a batch that was stored, of which some were new."""
        self.new[kind] += new
        self.known[kind] += tried - new

    def refused_of(self, kind: Kind) -> int:
        """Return how many of a kind were refused."""
        return sum(count for (refused, _), count in self.refused.items() if refused == kind)

    @property
    def total(self) -> int:
        """How many there were of all kinds."""
        return sum(counter.total() for counter in (self.new, self.known, self.refused))
