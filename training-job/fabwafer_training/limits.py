"""The limits of the gate. Apart from it, so that the command line shows them without loading NumPy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gate holds a candidate to.

    Attributes:
        maps_per_class: Gold maps that a class needs to be checked; the gate lets nothing through while one has fewer.
        macro_f1_fall: The lower bound of the difference in macro-F1 may be this far below zero.
        recall_fall: How far any class's recall may fall below the champion's.
        recall_floor: Below this no class's recall may fall. One that the champion has below it may not fall at all: a
            champion that is weak on a class must not forbid every better one.
        missed_as_none: The largest share of defects called none, where there are `maps_per_class` of them.
        macro_f1_floor: The smallest macro-F1 on all gold maps, whatever the champion's and however few they are.
    """

    maps_per_class: int = 30
    macro_f1_fall: float = 0.005
    recall_fall: float = 0.03
    recall_floor: float = 0.85
    missed_as_none: float = 0.02
    macro_f1_floor: float = 0.5
