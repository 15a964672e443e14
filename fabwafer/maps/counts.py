"""What can be counted on a wafer map. Apart from `grid`, so that those who only carry counts need no NumPy."""

from pydantic import BaseModel, ConfigDict


class MapCounts(BaseModel):
    """What was counted on a wafer map.

    Attributes:
        rows: Dies from top to bottom of the grid.
        columns: Dies from left to right.
        passed: Dies that passed.
        failed: Dies that failed.
        regions: 8-connected regions of failed dies.
        largest: Dies of the largest region.
    """

    model_config = ConfigDict(frozen=True)

    rows: int
    columns: int
    passed: int
    failed: int
    regions: int
    largest: int
