"""Files that another process reads, or that must survive a power cut."""

import os
from pathlib import Path


def replace_file(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file in one step, so that there is always the old one or the new one on the disk, never a part.

    Args:
        path: The file.
        content: Its new content; text is written as UTF-8.
        mode: Its permissions; by default its user alone may read it.
    """
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:  # a full disk: the part that was written takes room and is of no use
        fresh.unlink(missing_ok=True)
        raise
