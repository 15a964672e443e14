"""Print what an installation with the named extras needs, one requirement a line: `python requirements.py bridge`.

The Dockerfile installs these before the code, so that a change of the code leaves the layer of its dependencies as it
is. pip itself installs the dependencies of a project only together with it. Runs on the standard library alone.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> set[str]:
    """Return the project's own dependencies and those of the extras, without extras that only name others.

    Args:
        project: The table `project` of a pyproject.toml.
        extras: Names of extras.

    Raises:
        KeyError: There is no extra of such a name.
    """
    itself = re.compile(rf"{re.escape(project['name'])}\[(?P<extras>[^]]+)\]")
    found = set(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            if named := itself.fullmatch(requirement):
                found |= requirements(project, re.split(r"\s*,\s*", named["extras"]))
            else:
                found.add(requirement)
    return found


if __name__ == "__main__":
    pyproject = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text())
    print("\n".join(sorted(requirements(pyproject["project"], sys.argv[1:]))))
