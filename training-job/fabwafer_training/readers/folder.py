"""Labelled wafer maps as pictures in folders: `train/<class>/*.png` and `valid/<class>/*.png`, or `<class>/*.png`."""

from pathlib import Path
from typing import Final

import numpy as np

from fabwafer.maps.image_file import BadImageError
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.wafermap import encode, read
from fabwafer_training.dataset import DataError, Dataset, check_classes

PARTS: Final = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
"""Folders that are parts and no classes, in any case, and what they are called here."""
SUFFIXES: Final = (".png", ".jpg", ".jpeg")
OTHER_PICTURES: Final = (".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_folder(path: Path) -> Dataset:
    """Read every picture, drawn in any way that the model server reads. Each is a group of its own.

    What is hidden, and files that are no pictures, are passed over; the latter are told of.

    Raises:
        DataError: There are no pictures, one cannot be read, is no wafer map or has unknown colours, or some lie where
            they would be missed.
    """
    folders = _folders(path)
    parts = [folder for folder in folders if folder.name.lower() in PARTS]
    if parts and len(parts) < len(folders):
        beside = next(folder for folder in folders if folder not in parts)
        raise DataError(f"{path}: expected classes in {parts[0].name}, or without it, found {beside.name} beside it")
    grids, labels, groups, split = [], [], [], []
    others = 0
    for part in parts or [path]:
        for folder in _folders(part):
            files = _files(folder)
            pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
            others += len(files) - len(pictures)
            for file in pictures:
                try:
                    found = read(file.read_bytes())
                except (BadImageError, NotAWaferMapError) as error:
                    raise DataError(f"{file}: {error}") from None
                except OSError as error:
                    raise DataError(f"{file}: {error.strerror}") from None
                if found.doubt:
                    raise DataError(f"{file}: {found.doubt}")
                grids.append(found.grid)
                labels.append(folder.name)
                groups.append(str(file.relative_to(path)))
                split.append(PARTS[part.name.lower()] if parts else "")
    if not grids:
        raise DataError(f"{path}: found no pictures in {path}/<class> or {path}/train/<class>")
    return Dataset(
        path.name,
        grids,
        np.array(labels),
        np.array(groups),
        np.array(split),
        unread=(f"passed over {others} files that are no pictures",) if others else (),
        names=groups,
    )


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".") and not file.is_dir()]
    for file in files:
        if file.suffix.lower() in OTHER_PICTURES:
            raise DataError(f"{file}: expected pictures as {', '.join(SUFFIXES)}")
    return files


def write_folder(path: Path, data: Dataset) -> None:
    """Write maps as grey PNG files, native (a pixel a die), in the folders that `read_folder` reads.

    Maps whose split the source calls Test, or valid, go to `valid`; all others go to `train`.

    Raises:
        DataError: The folder holds something already, or a label cannot name a folder.
    """
    check_classes(str(path), data)
    if path.exists() and any(path.iterdir()):
        raise DataError(f"{path}: expected a folder that is new or empty: what is in it would count among the maps")
    for row, (grid, label) in enumerate(zip(data.grids, data.labels.tolist(), strict=True)):
        part = data.split[row].lower() if len(data.split) else ""
        folder = path / ("valid" if part in ("valid", "test") else "train") / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row:06d}.png").write_bytes(encode(grid))
