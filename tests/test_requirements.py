"""The requirements that the images install before the code."""

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from requirements import requirements
from tests.test_parts import ROOT, needed

PROJECT = {
    "name": "wafers",
    "dependencies": ["numpy>=2"],
    "optional-dependencies": {
        "all": ["wafers[server, train]", "uvloop"],
        "server": ["wafers[metrics]", "psycopg[binary]>=3.2"],
        "train": ["torch==2.13.0"],
        "metrics": ["numpy>=2", "prometheus-client"],
    },
}


def test_an_extra_that_names_other_extras_is_replaced_by_what_they_need() -> None:
    assert requirements(PROJECT, ["all"]) == {
        "numpy>=2",
        "prometheus-client",
        "psycopg[binary]>=3.2",
        "torch==2.13.0",
        "uvloop",
    }
    assert requirements(PROJECT, []) == {"numpy>=2"}


def test_an_extra_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError, match="missing"):
        requirements(PROJECT, ["missing"])


@pytest.mark.parametrize("extra", ["bridge", "serve", "training"])
def test_the_printed_requirements_are_those_of_the_extra_and_not_the_project(extra: str) -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "requirements.py", extra], check=True, capture_output=True, text=True
    ).stdout
    names = {Requirement(line).name for line in printed.splitlines()}
    assert names
    assert names <= needed(extra)
    assert "fabwafer" not in names
