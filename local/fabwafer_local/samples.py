"""Sample wafer maps as files, as an inspection camera would have them."""

from pathlib import Path
from typing import Final

from fabwafer.synthetic import sample
from fabwafer.wafermap import encode

SEED: Final = 20
SCALE: Final = 4
"""Pixels along a die's side: small enough to send, large enough to look at."""


def write_samples(directory: Path, count: int) -> list[Path]:
    """Writes synthetic wafer maps of all classes as PNG files named by class; the same ones each time.

    Args:
        directory: Made where it is missing.
        count: How many.

    Returns:
        The files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (label, grid) in enumerate(sample(seed=SEED, n=count), start=1):
        file = directory / f"{number:03d}-{label}.png"
        file.write_bytes(encode(grid, scale=SCALE))
        files.append(file)
    return files
