"""The defect classes of the shipped model, and what each usually points to."""

from typing import Final

NONE: Final = "none"
"""The class of a wafer without a defect pattern."""

NOT_A_WAFER: Final = "not-a-wafer"
"""What an image that is not a wafer map is called. Not a class: it never alerts, and it is never `none`."""

SHIPPED_CLASSES: Final = (
    "Center",
    "Donut",
    "Edge-Loc",
    "Edge-Ring",
    "Loc",
    "Near-full",
    "Random",
    "Scratch",
    NONE,
)
"""The nine classes of the shipped model in the order of its outputs. Other models bring theirs in their cards."""

CAUSES: Final[dict[str, str]] = {
    "Edge-Ring": "chamber conditioning, plasma uniformity",
    "Donut": "chamber conditioning, plasma uniformity",
    "Edge-Loc": "edge exclusion, contamination",
    "Loc": "particles at one place",
    "Scratch": "handling",
    "Center": "gradient from center to edge",
    "Random": "no common cause",
    "Near-full": "gross process or test failure",
}
"""What a class usually points to. Shown with alerts; a class that is not listed has no known cause."""

_BY_FOLDED_NAME: Final = {name.casefold(): name for name in (*SHIPPED_CLASSES, NOT_A_WAFER)}


def canonical_name(name: str) -> str:
    """Return the usual spelling of a class name that came in any case (`loc` is `Loc`), or the name as it came."""
    return _BY_FOLDED_NAME.get(name.strip().casefold(), name.strip())


def is_defect(name: str, good: str = NONE) -> bool:
    """Tell whether a class names a defect.

    Args:
        name: The class, in any case where it is a known one.
        good: The model's class of wafers without a defect; see `ModelCard.good_class`.

    Returns:
        False for `good`, `none` and `not-a-wafer`.
    """
    return canonical_name(name) not in (good, NONE, NOT_A_WAFER)
