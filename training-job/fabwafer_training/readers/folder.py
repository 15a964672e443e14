"""Labelled wafer maps as pictures in folders: `train/<class>/*.png` and `valid/<class>/*.png`, or `<class>/*.png`."""

from pathlib import Path
from typing import Final

import numpy as np

from fabwafer.wafermap import BadImageError, NotAWaferMapError, decode, encode
from fabwafer_training.dataset import DataError, Dataset

PARTS: Final = ("train", "valid", "test")
SUFFIXES: Final = (".png", ".jpg", ".jpeg")


def read_folder(path: Path) -> Dataset:
    """Reads every picture, drawn in any way that the model server reads. Each is a group of its own.

    Raises:
        DataError: There are no pictures, or one is no wafer map.
    """
    parts = [part for part in PARTS if (path / part).is_dir()]
    grids, labels, groups, split = [], [], [], []
    for part in parts or [""]:
        for folder in sorted(child for child in (path / part).iterdir() if child.is_dir()):
            for file in sorted(child for child in folder.iterdir() if child.suffix.lower() in SUFFIXES):
                try:
                    grids.append(decode(file.read_bytes()))
                except (BadImageError, NotAWaferMapError) as error:
                    raise DataError(f"{file}: {error}") from None
                labels.append(folder.name)
                groups.append(str(file.relative_to(path)))
                split.append(part)
    if not grids:
        raise DataError(f"{path}: found no pictures in {path}/<class> or {path}/train/<class>")
    return Dataset(path.name, grids, np.array(labels), np.array(groups), np.array(split), names=groups)


def write_folder(path: Path, data: Dataset) -> None:
    """Writes maps as grey PNG files, native (a pixel a die), in the folders that `read_folder` reads.

    Maps whose split the source calls Test, or valid, go to `valid`; all others go to `train`.
    """
    for row, (grid, label) in enumerate(zip(data.grids, data.labels.tolist(), strict=True)):
        part = data.split[row].lower() if len(data.split) else ""
        folder = path / ("valid" if part in ("valid", "test") else "train") / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row:06d}.png").write_bytes(encode(grid))
