"""Logs of a long-running process: what cannot be written ends nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import structlog
from fabwafer.service.logs import configure
configure()
for number in range(3):
    structlog.get_logger().warning("line", number=number)
print("still here")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file that is always full")
def test_a_process_goes_on_whose_log_is_on_a_full_disk() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.stdout == b"still here\n"
