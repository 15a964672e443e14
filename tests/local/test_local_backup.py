"""A local system is backed up while it runs, lost, and brought back on another data directory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.models.store import FolderStore
from tests.support import tiny_models
from tests.support.running import wait_until
from tests.support.up import Up, fabwafer, records


def command(name: str, folder: Path, data: Path) -> str:
    """Runs `fabwafer backup` or `restore`, and returns what it shows."""
    program = f"from fabwafer_bridge.commands.{name} import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, folder, "--data", data],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def champions(data: Path) -> dict[str, list[str]]:
    shown = fabwafer("model", "list", "--json", "--data", str(data), cwd=data)
    return {one["version"]: one["states"] for one in map(json.loads, shown.stdout.splitlines())}


def classified(up: Up, count: int) -> list[dict[str, Any]]:
    """All records, once so many wafers have their prediction."""
    wait_until(lambda: [len(one["predictions"]) for one in records(up)] == [1] * count, lambda: str(records(up)))
    return records(up)


@pytest.mark.timeout(600)
def test_a_local_system_is_lost_and_brought_back_on_another_data_directory(tmp_path: Path) -> None:
    release = str(tiny_models.make(tmp_path / "r1", "r1"))
    image = tmp_path / "wafer.png"
    image.write_bytes(encode(sample(seed=9, n=1)[0][1], scale=3))
    with Up(tmp_path / "lost", "--samples", "3", FABWAFER_MODEL=release) as lost:
        data = lost.running().data
        added = fabwafer("device", "add", "fabx", "cam1", "--data", str(data), "--json", cwd=tmp_path)
        credentials = json.loads(added.stdout)
        classified(lost, 3)
        store = FolderStore(data / "model-store")
        tiny_models.make(store.work_folder("v2"), "v2", seed=4)
        store.publish("v2")
        promoted = fabwafer("model", "promote", "v2", "--data", str(data), cwd=tmp_path)
        assert promoted.returncode == 0, promoted.stderr
        reviewed = fabwafer("review", "demo", "camera1", "001-Center", "Donut", "--data", str(data), cwd=tmp_path)
        assert reviewed.returncode == 0, reviewed.stderr
        before = records(lost)
        print(command("backup", tmp_path / "backup", data))
    shutil.rmtree(tmp_path / "lost")

    with Up(tmp_path / "new", "--samples", "0", FABWAFER_MODEL=release) as new:
        data = new.running().data
        assert champions(data) == {"r1": ["champion"]}
        shown = command("restore", tmp_path / "backup", data)
        print(shown)
        assert "device demo.camera1 was here already, and keeps the password that it has here" in shown
        assert records(new) == before
        assert champions(data) == {"r1": [], "v2": ["champion"]}
        sign_in = ("--user", credentials["user"], "--password", credentials["password"])
        to = ("--fab", "fabx", "--camera", "cam1", *sign_in, "--data", str(data), "--json")
        sent = fabwafer("send", str(image), *to, cwd=tmp_path)
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout)["prediction"]
        classified(new, 4)
        [mine] = records(new, "--fab", "fabx")
        assert [one["model"] for one in mine["predictions"]] == ["v2"]
