"""Small files that another process reads, or that must survive a power cut."""

import os
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Writes a file, readable by its user alone, so that there is always the old one or the new one, never a part."""
    fresh = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
