"""Readers: one module per form that labelled wafer maps come in."""

from pathlib import Path

from fabwafer_training.dataset import DataError, Dataset, check_classes


def read(source: str) -> Dataset:
    """Read labelled wafer maps in any form that has a reader.

    Args:
        source: A file or folder; `synthetic:N` for N maps of the generator (`synthetic:N:SEED` with another seed);
            `records` for the reviewed wafers of the running system, `records:URL` for those of other records.

    Raises:
        DataError: There is nothing to read, or it is not in the form it seems to be in.
    """
    data = _read(source)
    check_classes(source, data)
    return data


def _read(source: str) -> Dataset:
    if source.startswith("synthetic:"):
        from fabwafer_training.readers.synthetic import read_synthetic

        return read_synthetic(source)
    if source == "records" or source.startswith("records:"):
        return _read_records(source.partition(":")[2])
    if not source:
        raise DataError("expected a file, a folder, synthetic:N or records, got nothing")
    path = Path(source)
    if path.is_dir():
        from fabwafer_training.readers.folder import read_folder

        return read_folder(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    match path.suffix.lower():
        case ".npz":
            from fabwafer_training.readers.npz import read_npz

            return read_npz(path)
        case ".pkl":
            from fabwafer_training.readers.pickled import read_pickle

            return read_pickle(path)
        case ".mat":
            from fabwafer_training.readers.matlab import read_matlab

            return read_matlab(path)
        case _:
            raise DataError(
                f"{path}: expected a folder of train/<class>/*.png, or a file .npz, .pkl or .mat, "
                "synthetic:N or records"
            )


def _read_records(url: str) -> Dataset:
    from fabwafer.commands.system import SystemNotFoundError, address
    from fabwafer_training.readers.reviewed import read_reviewed

    try:
        return read_reviewed(url or address("database_url", None))
    except SystemNotFoundError as error:
        raise DataError(str(error)) from None
