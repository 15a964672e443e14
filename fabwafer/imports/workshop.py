"""What the cloud vendor's wafer workshop recorded, into the records: the rows of its tables, the images of its bucket.

All of it is history. It alerts nobody, and it counts as received when it was made, at the latest now. Predictions are
stored as the device's own: no model of this system made them.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DataError, IntegrityError

from fabwafer.imports.dynamodb import Row
from fabwafer.imports.tally import Kind, Tally
from fabwafer.maps.counts import MapCounts
from fabwafer.maps.image_file import MAX_BYTES, BadImageError
from fabwafer.messages.bodies import CONTEXT_FIELDS, ClassName, ImageMetadata, device_prediction, read_fields
from fabwafer.messages.encoding import EncodingError, decoded_base64
from fabwafer.messages.refusals import MessageRefusedError, shown
from fabwafer.messages.topics import NAME_RULE, is_name
from fabwafer.records import ReceivedPrediction, Records, Review, Shot
from fabwafer.records.fields import storable
from fabwafer.records.keys import WaferKey, key_of

REVIEWER: Final = "import"
"""Who gave the reviews that are imported: the workshop's table does not say."""

_OF_IMAGE: Final[tuple[str, ...]] = ("imgid", "timestamp", "fab", "camera", "colours", *CONTEXT_FIELDS)
"""The fields of a row that its image has as well as its prediction."""

SUFFIXES: Final = (".png", ".jpg", ".jpeg")

_ROWS_AT_ONCE: Final = 500
_FILES_AT_ONCE: Final = 100
_BYTES_AT_ONCE: Final = 16 * 1024 * 1024
"""Bytes of image files in memory, and one more file."""

T = TypeVar("T")
CountDies = Callable[[ImageMetadata, bytes], MapCounts | None]
"""Counts the dies on an image file's map; None where it shows none that can be read for sure. Raises BadImageError."""


class _GroundTruth(ImageMetadata):
    ground_truth: ClassName


class WorkshopImport:
    """Imports rows and images in batches, each in a transaction of its own; a bad one never stops the others.

    Importing the same again changes nothing. RecordsUnavailableError leaves what was imported before.

    Args:
        records: Where it goes.
        count_dies: Counts the dies on images.
        tally: Counts what becomes of each.
        progress: Called after each batch.
    """

    def __init__(self, records: Records, count_dies: CountDies, tally: Tally, progress: Callable[[], None]) -> None:
        self._records, self._count_dies, self._tally, self._progress = records, count_dies, tally, progress
        self._now = round(time.time() * 1000)
        self._predictions: list[tuple[str, ReceivedPrediction]] = []
        self._reviews: list[tuple[str, tuple[WaferKey, Review]]] = []
        self._shots: list[tuple[str, Shot]] = []
        self._counts: dict[WaferKey, MapCounts] = {}

    def import_rows(self, rows: Iterable[Row]) -> None:
        """Import rows of the workshop's tables.

        A row with `prediction` is a prediction, one with `ground_truth` a review; `bytes` in a row is its image.

        Args:
            rows: In any order; but a review of a wafer that nothing was imported of before is refused.
        """
        for row in rows:
            if row.fields is None:
                self._tally.refuse("row", row.place, "unreadable", row.reason)
            else:
                self._take_row(row.place, row.fields)
            if self._is_full(len(self._predictions) + len(self._reviews) + len(self._shots), _ROWS_AT_ONCE):
                self._store()
        self._store()

    def import_images(self, folder: Path) -> None:
        """Import the image files of the workshop's bucket.

        `<fab>/<camera>/<imgid>.png` in the folder, as in the bucket, names the wafer. A file elsewhere in it belongs to
        the only wafer of its imgid in the records. The moment of capture is that of the wafer's prediction, else the
        file's.
        """
        batch: list[Path] = []
        for file in self._files(folder):
            batch.append(file)
            if len(batch) == _FILES_AT_ONCE:
                self._take_files(folder, batch)
                batch = []
        self._take_files(folder, batch)
        self._store()

    def _take_row(self, place: str, fields: dict[str, Any]) -> None:
        encoded = fields.pop("bytes", None)
        if "prediction" in fields:
            with self._refusing("prediction", place):
                prediction = device_prediction(fields)
                received = self._received(prediction.timestamp)
                self._predictions.append((place, ReceivedPrediction(prediction, received, 0)))
        elif "ground_truth" in fields:
            with self._refusing("review", place):
                truth = read_fields(_GroundTruth, fields)
                review = Review(storable(truth.ground_truth), REVIEWER, truth.timestamp, None)
                self._reviews.append((place, (key_of(truth), review)))
        elif encoded is None:
            found = ", ".join(sorted(fields)) or "none"
            reason = f"expected a field 'prediction', 'ground_truth' or 'bytes', got the fields {shown(found)}"
            self._tally.refuse("row", place, "field", reason)
        if encoded is not None:
            with self._refusing("image", place):
                if not isinstance(encoded, str):
                    raise MessageRefusedError(f"field 'bytes': expected base64 of an image file, got {shown(encoded)}")
                of_image = {name: fields[name] for name in _OF_IMAGE if name in fields}
                self._take_image(place, read_fields(ImageMetadata, of_image), decoded_base64(encoded))

    def _take_image(self, place: str, image: ImageMetadata, data: bytes) -> None:
        counts = self._count_dies(image, data)
        if counts is None:
            self._tally.uncounted += 1
        else:
            self._counts[key_of(image)] = counts
        self._shots.append((place, Shot(image, data, self._received(image.timestamp), 0)))

    def _files(self, folder: Path) -> Iterator[Path]:
        def refuse(error: OSError) -> None:
            self._tally.refuse("image", str(error.filename), "unreadable", f"cannot read the folder: {error.strerror}")

        for path, folders, names in os.walk(folder, onerror=refuse):
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(SUFFIXES):
                    yield Path(path, name)
                else:
                    expected = f"expected a file that ends in {', '.join(SUFFIXES)}"
                    self._tally.refuse("image", str(Path(path, name)), "name", expected)

    def _take_files(self, folder: Path, files: Sequence[Path]) -> None:
        owners = self._owners(folder, files)
        times = self._records.capture_times(set(owners.values()))
        for file, (fab, camera, imgid) in owners.items():
            with self._refusing("image", str(file)):
                image = read_fields(ImageMetadata, {"imgid": imgid, "timestamp": 0, "fab": fab, "camera": camera})
                found = file.stat()
                if found.st_size > MAX_BYTES:
                    raise BadImageError(
                        f"expected an image of at most {MAX_BYTES} bytes, got {found.st_size}", "too_large"
                    )
                taken = times.get((fab, camera, imgid), max(0, round(found.st_mtime * 1000)))
                # Not read as a field: a stored time is in milliseconds, however early it is.
                self._take_image(str(file), image.model_copy(update={"timestamp": taken}), file.read_bytes())
            if self._is_full(len(self._shots), _FILES_AT_ONCE):
                self._store()

    def _owners(self, folder: Path, files: Sequence[Path]) -> dict[Path, WaferKey]:
        """Return the wafer of each file; one that has none is refused."""
        owners: dict[Path, WaferKey] = {}
        elsewhere = []
        for file in files:
            if not is_name(file.stem):
                self._tally.refuse(
                    "image", str(file), "name", f"expected an imgid of {NAME_RULE}, got {shown(file.stem)}"
                )
            elif len(parts := file.relative_to(folder).parts) == 3:
                if is_name(parts[0]) and is_name(parts[1]):
                    owners[file] = parts[0], parts[1], file.stem
                else:
                    reason = f"expected a fab and a camera of {NAME_RULE}, got {shown(parts[:2])}"
                    self._tally.refuse("image", str(file), "name", reason)
            else:
                elsewhere.append(file)
        found = self._records.wafers_of_images({file.stem for file in elsewhere})
        for file in elsewhere:
            wafers = found[file.stem]
            if len(wafers) == 1:
                owners[file] = wafers[0]
                continue
            reason = (
                f"expected the only wafer of image {file.stem!r}, got {len(wafers)} in the records: "
                "FAB/CAMERA/IMGID.png in the folder names one"
            )
            self._tally.refuse("image", str(file), "unknown_wafer", reason)
        return owners

    def _is_full(self, items: int, most: int) -> bool:
        return items >= most or sum(len(shot.data) for _, shot in self._shots) >= _BYTES_AT_ONCE

    def _received(self, timestamp: int) -> int:
        return min(timestamp, self._now)  # a device's clock may be wrong, but nothing was received later than now

    def _store(self) -> None:
        """Store what was read: predictions first, since reviews and counts belong to them."""
        records, counts = self._records, self._counts
        if self._predictions:
            self._store_batch("prediction", self._predictions, records.import_predictions)
        if self._shots:
            self._store_batch("image", self._shots, lambda shots: records.import_shots(shots, counts))
        if self._reviews:
            self._store_reviews()
        self._predictions, self._reviews, self._shots, self._counts = [], [], [], {}
        self._progress()

    def _store_reviews(self) -> None:
        for (place, (key, _)), result in zip(
            self._reviews, self._records.import_reviews([found for _, found in self._reviews]), strict=True
        ):
            if result == "unknown":
                reason = f"nothing is recorded of {'/'.join(key)}: import its prediction first"
                self._tally.refuse("review", place, "unknown_wafer", reason)
            elif result == "later":
                self._tally.refuse("review", place, "superseded", f"{'/'.join(key)} has a later review, which counts")
            else:
                self._tally.store("review", 1, int(result == "new"))

    def _store_batch(self, kind: Kind, batch: list[tuple[str, T]], store: Callable[[Sequence[T]], int]) -> None:
        try:
            self._tally.store(kind, len(batch), store([item for _, item in batch]))
        except (DataError, IntegrityError) as error:
            if len(batch) == 1:
                self._tally.refuse(kind, batch[0][0], "refused_by_records", f"the records refuse it: {error.orig}")
                return
            for one in batch:
                self._store_batch(kind, [one], store)

    @contextmanager
    def _refusing(self, kind: Kind, place: str) -> Iterator[None]:
        try:
            yield
        except (MessageRefusedError, BadImageError) as error:
            self._tally.refuse(kind, place, error.code, str(error))
        except EncodingError as error:
            self._tally.refuse(kind, place, "base64", f"field 'bytes': {error}")
        except OSError as error:
            self._tally.refuse(kind, place, "unreadable", f"cannot read the file: {error.strerror}")
