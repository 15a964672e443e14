"""What docs/from-the-workshop.md tells people to type works."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nats
import pytest
from typer.testing import CliRunner

from fabwafer.commands import imports
from fabwafer.records import Records
from tests.support.nats_servers import NatsServer, add_device
from tests.support.streams import make_streams
from tests.support.workshop import ground_truth, item, map_file, write_lines, write_scan

PAGE = (Path(__file__).parents[2] / "docs" / "from-the-workshop.md").read_text()


async def test_the_lines_for_a_camera_publish_an_image_with_a_puback(nats_server: NatsServer, tmp_path: Path) -> None:
    await make_streams(nats_server.url)
    _, password = add_device(nats_server, "faba", "camera1")
    (tmp_path / "w1.png").write_bytes(map_file())
    [lines] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    environment = {
        **os.environ,
        "FABWAFER_DEVICE_PASSWORD": password,
        "MQTT_HOST": "127.0.0.1",
        "MQTT_PORT": str(nats_server.mqtt_port),
    }
    command = [sys.executable, "-c", lines + "\npublish('w1', 'w1.png')\nprint('acknowledged')"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "acknowledged\n", done.stderr

    client = await nats.connect(nats_server.url)
    try:
        stored = await client.jetstream().get_last_msg("$MQTT_msgs", "$MQTT.msgs.fabwafer.faba.camera1.img.w1")
    finally:
        await client.close()
    assert stored.data is not None
    assert json.loads(stored.data)["imgid"] == "w1"


def test_the_commands_that_import_the_history_run_one_after_another(
    migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "records.db")
    monkeypatch.setenv("FABWAFER_DATABASE_URL", f"sqlite:///{tmp_path / 'records.db'}")
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "classifications" / "01" / "data" / "a.json.gz", [item("img1")])
    write_scan(tmp_path / "overrides.json", [ground_truth("img1")])
    image = tmp_path / "images" / "faba" / "camera1" / "img1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(map_file())

    commands = re.findall(r"^fabwafer import (aws [^#\n]*?) +#", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for words in commands:
        result = CliRunner().invoke(imports.app, words.split())
        assert result.exit_code == 0, result.output
    with Records(f"sqlite:///{tmp_path / 'records.db'}") as records:
        [wafer] = records.wafers()
    assert wafer.current is not None
    assert wafer.review is not None
    assert wafer.map is not None
