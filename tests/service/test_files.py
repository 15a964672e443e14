"""A file is replaced in one step."""

from pathlib import Path

import pytest

from fabwafer.service.files import replace_file
from tests.support.small_disks import SmallDisk


def test_a_file_is_made_and_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    replace_file(file, "first, ä")
    replace_file(file, b"second")
    assert file.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_the_permissions_asked_for_whatever_it_had(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "state.json"
    file.touch(mode=0o666)
    replace_file(file, "content", mode=mode)
    assert file.stat().st_mode & 0o777 == mode


def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    replace_file(file, "first")
    (tmp_path / ".state.json.new").mkdir()  # in the way
    with pytest.raises(OSError, match="directory"):
        replace_file(file, "second")
    assert file.read_text() == "first"


def test_a_full_disk_keeps_the_old_file_and_no_part_of_the_new_one(small_disk: SmallDisk) -> None:
    file = small_disk.path / "state.json"
    replace_file(file, "first")
    small_disk.fill(leave=1 << 16)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, bytes(1 << 20))
    assert file.read_text() == "first"
    assert {one.name for one in small_disk.path.iterdir()} == {"state.json", "ballast"}
