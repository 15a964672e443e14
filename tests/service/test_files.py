"""A file is replaced in one step."""

from pathlib import Path

import pytest

from fabwafer.service.files import replace_file


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
