"""Which colour of a drawing means what: outside, passed or failed.

It is stated by somebody, or recognised: green and red, matplotlib's colour maps and cycles by their own colours, greys
by their rank from the outside. Everything else is read as best one can, and `doubt` says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from fabwafer.maps import colour_maps
from fabwafer.maps.grid import FAILED, OUTSIDE, PASSED, Grid
from fabwafer.maps.palette import Colour, green, grey, luma, off_blend, red
from fabwafer.maps.stated_colours import StatedColours

_NEUTRAL: Final = 24.0  # largest difference between the channels of a figure's background: white, greys, black
_STATED: Final = 48.0  # distance within which a colour is one that was stated
_STATE: Final = "`fabwafer drawing` and the message field `colours` state them"


@dataclass(frozen=True, slots=True)
class Outside:
    """What is around the wafer in a drawing, and how the drawing's colours came to be.

    Attributes:
        colour: The colour of the outside.
        hidden: Whether it was transparent, so that its colour says nothing.
        way: `flat` colours are exact; smoothing and JPEG move a colour by 10 to 30 in RGB.
    """

    colour: Colour
    hidden: bool
    way: Literal["flat", "smoothed", "jpeg"]

    @property
    def tolerance(self) -> float:
        """The distance in RGB within which a colour is a known one."""
        return 12.0 if self.way == "flat" else 32.0


@dataclass(frozen=True, slots=True)
class Meaning:
    """What each colour of the dies means (PASSED or FAILED), and why that is not certain; empty where it is."""

    values: tuple[int, ...]
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class _Sense:
    """Whether the first of two colours is the failed one; `certain` where that holds whatever the dies look like."""

    first_failed: bool
    certain: bool


def hexadecimal(colour: Colour) -> str:
    """Return a colour as `#rrggbb`."""
    return "#" + bytes(np.clip(np.rint(colour), 0, 255).astype(np.uint8)).hex()


def of_several(outside: Outside, dies: Sequence[Colour], counts: Sequence[int]) -> Meaning:
    """Tell what two or more colours of dies mean.

    Args:
        outside: What is around the wafer.
        dies: The colours of the dies, two or more.
        counts: How many dies have each.
    """
    if len(dies) == 2:
        return _of_two(outside, dies[0], dies[1], counts)
    most = int(np.argmax(counts))
    return Meaning(
        tuple(PASSED if number == most else FAILED for number in range(len(dies))),
        f"expected one colour of passed dies and one of failed ones, got {len(dies)} colours of dies: the most "
        f"frequent, {hexadecimal(dies[most])}, was read as passed, the others as failed; {_STATE}",
    )


def of_one(outside: Outside, colour: Colour) -> int | None:
    """Tell what the only colour of dies means: PASSED, FAILED, or None where it does not tell."""
    if green(colour):
        return PASSED
    if red(colour):
        return FAILED
    if grey(outside.colour, outside.tolerance) and grey(colour, outside.tolerance):
        value = luma(colour)
        # The middle of the native greys; 1 of the raw values, which no smoothed drawing shows.
        if luma(outside.colour) < outside.tolerance and (abs(value - 127) < outside.tolerance or abs(value - 1) < 0.5):
            return PASSED
        return None
    drawn = np.stack([outside.colour, colour])
    half, whole = (
        float(np.linalg.norm(colour_maps.TRIPLES[:, [0, place]] - drawn, axis=2).max(axis=1).min()) < outside.tolerance
        for place in (1, 2)
    )
    return PASSED if half and not whole else None


def doubt_of_one(colour: Colour) -> str:
    """Return the doubt about a wafer whose dies all have one colour that says neither passed nor failed."""
    return (
        f"expected a colour that is known to mean passed or failed, got only {hexadecimal(colour)}: all dies were read "
        f"as passed; {_STATE}"
    )


def doubt_of_failed_only(outside: Outside, colour: Colour, grid: Grid) -> str:
    """Return the doubt about a drawing in two colours that was read as failed dies alone; empty where there is none.

    Args:
        outside: What is around the wafer.
        colour: The colour that was read as failed.
        grid: The dies.
    """
    if red(colour):
        return ""
    # Two values 0 and 1 mean passed and failed, whatever 1 means among three.
    passed = of_one(outside, colour) == PASSED and luma(colour) > 1
    if not passed and np.count_nonzero(grid == FAILED) <= np.count_nonzero(grid == PASSED):
        return ""
    return (
        f"expected a drawing in two colours to show few failed dies, got {hexadecimal(colour)} on most of the wafer, "
        f"or as a colour of passed dies: it was read as failed; {_STATE}"
    )


def whole_map(outside: Outside, one: Colour, other: Colour, counts: Sequence[int]) -> bool:
    """Tell whether three colours are those of one colour map, or the native greys: then there is no fourth.

    Args:
        outside: What is around the wafer.
        one: A colour of dies.
        other: The other one.
        counts: How many dies have each.
    """
    if outside.hidden:
        return False
    if all(grey(colour, outside.tolerance) for colour in (outside.colour, one, other)):
        rank = _by_rank(luma(outside.colour), luma(one), luma(other))
        return rank is not None and rank.certain
    return min(_off_maps(outside, one, other, counts)) < 1.25 * outside.tolerance


def stated(outside: Outside, dies: Sequence[Colour], told: StatedColours) -> tuple[list[int], str]:
    """Return what the outside and each colour of dies mean by what was stated, and why that is not certain.

    Args:
        outside: What is around the wafer, by what its corners show.
        dies: All other colours of the drawing.
        told: What was stated.

    Returns:
        OUTSIDE, PASSED or FAILED for the outside and each colour; and a sentence, empty where each colour was stated.
    """
    named = [
        (np.array(list(bytes.fromhex(colour[1:])), np.float32), value)
        for value, several in ((OUTSIDE, told.outside), (PASSED, told.passed), (FAILED, told.failed))
        for colour in several
    ]
    meanings, unknown = [], []
    for place, colour in enumerate((outside.colour, *dies)):
        distance, value = min(((float(np.linalg.norm(colour - one)), value) for one, value in named))
        if place == 0 and (outside.hidden or (not told.outside and (distance > _STATED or value == FAILED))):
            value = OUTSIDE  # the corners, where a wafer is never
        elif distance > _STATED:
            if not told.failed:
                value = FAILED
            elif not told.passed:
                value = PASSED
            else:
                unknown.append(hexadecimal(colour))
        meanings.append(value)
    if not unknown:
        return meanings, ""
    return meanings, f"expected the colours that were stated for its drawings, got {', '.join(unknown)} as well"


def _of_two(outside: Outside, one: Colour, other: Colour, counts: Sequence[int]) -> Meaning:
    sense = _recognised(outside, one, other, counts)
    first = _guess(one, other, counts) if sense is None else sense.first_failed
    values = (FAILED, PASSED) if first else (PASSED, FAILED)
    around = "nothing" if outside.hidden else hexadecimal(outside.colour)
    pair = f"{hexadecimal(one)} and {hexadecimal(other)} on {around}"
    if sense is None:
        return Meaning(
            values,
            f"expected colours that are known to mean passed and failed, got {pair}: "
            f"{hexadecimal(other if first else one)} was read as passed; {_STATE}",
        )
    failed, passed = counts if first else reversed(counts)
    if not sense.certain and failed > passed:
        return Meaning(
            values,
            "expected more passed dies than failed ones where only the order of colours tells them, got the contrary "
            f"in {pair}; {_STATE}",
        )
    return Meaning(values)


def _recognised(outside: Outside, one: Colour, other: Colour, counts: Sequence[int]) -> _Sense | None:
    off = np.inf
    if not outside.hidden:
        if all(grey(colour, outside.tolerance) for colour in (outside.colour, one, other)):
            return _by_rank(luma(outside.colour), luma(one), luma(other))
        straight, reverse = _off_maps(outside, one, other, counts)
        off = min(straight, reverse)
    # Two colours fit more easily than three.
    if (outside.hidden or grey(outside.colour, _NEUTRAL)) and _off_pairs(one, other) < min(
        off / 2 - 2, outside.tolerance
    ):
        senses = _by_pair(one, other, outside.tolerance)
        return senses.pop() if len(senses) == 1 else None
    if off < 1.25 * outside.tolerance:
        failed, passed = (one, other) if reverse < straight else (other, one)
        # Black, white and a red are more often drawn for outside, passed and failed than as a map's colours.
        return None if red(passed) and grey(failed, _NEUTRAL) else _Sense(failed is one, certain=True)
    if red(one) != red(other):
        rest = other if red(one) else one
        if green(rest) or grey(rest, _NEUTRAL):
            return _Sense(red(one), certain=green(rest))
    return None


def _by_rank(outside: float, one: float, other: float) -> _Sense | None:
    """Tell which of two greys is the failed one by their luminance: the further one, if the outside is at an end."""
    if min(one, other) < outside < max(one, other):
        return None
    near, far = sorted((abs(one - outside), abs(other - outside)))
    # Black, middle grey and white, or the other way round; blends of dies move the middle one.
    native = far > 235 and 90 < near < 165
    return _Sense(abs(one - outside) > abs(other - outside), certain=native)


def _off_maps(outside: Outside, one: Colour, other: Colour, counts: Sequence[int]) -> tuple[float, float]:
    """Return how far three colours are from those of the nearest map, with `one` passed and with `other` passed.

    A JPEG file blends the chroma of the rarer dies with that of the others around them.
    """
    low, middle, high = (colour_maps.TRIPLES[:, place] for place in range(3))
    around = np.linalg.norm(low - outside.colour, axis=1)

    def nearest(passed: Colour, failed: Colour, passed_rarer: bool) -> float:
        off = [around, np.linalg.norm(middle - passed, axis=1), np.linalg.norm(high - failed, axis=1)]
        if outside.way == "jpeg":
            rarer, known, often = (passed, middle, high) if passed_rarer else (failed, high, middle)
            off[1 if passed_rarer else 2] = off_blend(rarer, known, often, jpeg=True, light=0.25, chroma=0.6)
        return float(np.max(off, axis=0).min())

    rarer = counts[0] < counts[1]
    return nearest(one, other, rarer), nearest(other, one, not rarer)


def _off_pairs(one: Colour, other: Colour) -> float:
    drawn = [np.stack([one, other]), np.stack([other, one])]
    return min(float(np.linalg.norm(colour_maps.PAIRS - pair, axis=2).max(axis=1).min()) for pair in drawn)


def _by_pair(one: Colour, other: Colour, tolerance: float) -> set[_Sense | None]:
    """Look for two colours among those that maps have where the outside is masked.

    Returns:
        What the maps that have them say, None for a map whose ends do not tell; empty where no map has them.
    """
    found: set[_Sense | None] = set()
    for first_failed, passed, failed in ((False, one, other), (True, other, one)):
        near = np.linalg.norm(colour_maps.PAIRS - np.stack([passed, failed]), axis=2).max(axis=1) < tolerance
        contrary = (green(failed) and not green(passed)) or (red(passed) and grey(failed, _NEUTRAL))
        for ordered in colour_maps.ORDERED[near]:
            found.add(_Sense(first_failed, certain=red(failed)) if ordered and not contrary else None)
    return found


def _guess(one: Colour, other: Colour, counts: Sequence[int]) -> bool:
    """Guess whether `one` is the failed colour: not green, or red; else the less frequent one."""
    if green(one) != green(other):
        return green(other)
    if red(one) != red(other):
        return red(one)
    return counts[0] < counts[1]
