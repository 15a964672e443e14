"""Who may read a data directory: what a local system writes there is its owner's alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

UMASK: Final = 0o077
"""Of the processes of a local system: others get no permission on what they write."""
_DIRECTORY: Final = 0o700
_FILE: Final = 0o600


def make_private(directories: Iterable[Path], files: Iterable[Path]) -> None:
    """Take the permissions of others from folders and files, and make those that are missing.

    What is in a folder is out of reach for others with it. A link is left alone, and so is what it leads to.

    Args:
        directories: The folders.
        files: The files.

    Raises:
        OSError: One cannot be made, or belongs to another user.
    """
    for folder in directories:
        if not folder.is_symlink():
            folder.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
            folder.chmod(_DIRECTORY)
    for file in files:
        if not file.is_symlink():
            file.touch(mode=_FILE)
            file.chmod(_FILE)
