"""The parts never import each other: they meet on the bus, in the records and in the model store."""

import ast
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fabwafer.models.store import FolderStore
from fabwafer.records import Records
from tests.support import tiny_models

ROOT = Path(__file__).parent.parent
PARTS = {
    "edge": "fabwafer_edge",
    "bridge": "fabwafer_bridge",
    "handlers": "fabwafer_handlers",
    "training-job": "fabwafer_training",
    "local": "fabwafer_local",
}
ALLOWED = {
    ("local", "fabwafer_handlers"),  # it starts the model server and drives it
    ("local", "fabwafer_bridge"),  # it starts the NATS server, whose configuration is the bridge's
}


def imported(file: Path) -> set[str]:
    """The packages that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", PARTS)
def test_a_part_imports_no_other_part(folder: str) -> None:
    files = sorted((ROOT / folder / PARTS[folder]).rglob("*.py"))
    assert files
    others = set(PARTS.values()) - {PARTS[folder]} - {other for part, other in ALLOWED if part == folder}
    wrong = [(str(file.relative_to(ROOT)), names) for file in files if (names := imported(file) & others)]
    assert wrong == []


def test_the_shared_package_imports_no_part() -> None:
    files = sorted((ROOT / "fabwafer").rglob("*.py"))
    assert [str(file) for file in files if imported(file) & set(PARTS.values())] == []


def test_a_part_that_did_import_another_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "guilty.py"
    file.write_text(
        "def f():\n    from fabwafer_bridge.dead_letters import letter\n    import fabwafer_edge.camera as c\n"
    )
    assert imported(file) == {"fabwafer_bridge", "fabwafer_edge"}


def needed(extra: str) -> set[str]:
    """All distributions that `pip install fabwafer[extra]` brings, by what the installed ones say they need."""
    found: set[str] = set()
    open_ones: list[tuple[str, str]] = [("fabwafer", extra)]
    seen = set(open_ones)
    while open_ones:
        name, wanted = open_ones.pop()
        found.add(canonicalize_name(name))
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": wanted}):
                continue
            for more in (requirement.extras or {""}) | {""}:
                if (requirement.name, more) not in seen:
                    seen.add((requirement.name, more))
                    open_ones.append((requirement.name, more))
    return found


@pytest.mark.parametrize("extra", ["bridge", "rollout", "edge", "records", "classify", "handlers", "kserve", "archive"])
def test_a_part_that_needs_no_torch_does_not_install_it(extra: str) -> None:
    assert "torch" not in needed(extra)


def test_the_parts_that_need_torch_do_install_it() -> None:
    assert all("torch" in needed(extra) for extra in ("serve", "training", "local", "all"))


RUN_WITHOUT = """
import sys
words, absent = sys.argv[1].split(), sys.argv[2].split()
sys.modules.update(dict.fromkeys(absent))
sys.argv = ["fabwafer", *words]
from fabwafer.cli import main
main()
"""
"""Runs a command where some modules cannot be imported."""


def test_a_version_is_promoted_where_the_bridges_extra_alone_is_installed(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    store = FolderStore(tmp_path / "model-store")
    tiny_models.make(store.work_folder("v1"), "v1")
    store.publish("v1")
    there = needed("bridge")
    absent = {
        module
        for module, brought_by in metadata.packages_distributions().items()
        if there.isdisjoint(map(canonicalize_name, brought_by))
    }
    assert {"torch", "onnxruntime"} <= absent
    absent |= set(PARTS.values()) - {"fabwafer_bridge"}
    for words in ("model promote v1", "model list --json", "model trial v1", "model history"):
        command = [sys.executable, "-c", RUN_WITHOUT, f"{words} --data {tmp_path}", " ".join(absent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with Records(f"sqlite:///{tmp_path / 'records.db'}") as records:
        assert [rollout.champion for rollout in records.rollouts()] == ["v1"]
