"""Each image holds the commands of its part alone, and runs them as `restricted` wants it."""

import json

import images
import pytest
from namespaces import Namespace, restricted_pod

pytestmark = pytest.mark.timeout(900)

_LOOK = """
import importlib.util, json, os
from importlib.metadata import entry_points
commands = []
for entry in entry_points(group="fabwafer.commands"):
    try:
        entry.load()
    except ModuleNotFoundError:
        continue
    commands.append(entry.name)
modules = [name for name in ("torch", "nats", "ts", "onnxruntime") if importlib.util.find_spec(name)]
print(json.dumps({"commands": commands, "modules": modules, "user": os.getuid()}))
"""


@pytest.mark.parametrize(
    ("image", "has", "has_not", "modules"),
    [
        (
            images.BRIDGE,
            {"bridge", "device-auth", "gateway", "migrate", "model", "rollout", "backup", "smoke-test"},
            {"train", "up", "send"},
            ["nats"],
        ),
        (images.HANDLERS, {"archive"}, {"bridge", "train", "up"}, ["torch", "ts", "onnxruntime"]),
        (images.TRAINING, {"train", "retrain", "model", "evaluate"}, {"bridge", "up"}, ["torch", "onnxruntime"]),
    ],
    ids=["bridge", "handlers", "training-job"],
)
async def test_an_image_has_the_commands_and_packages_of_its_part(
    namespace: Namespace, image: str, has: set[str], has_not: set[str], modules: list[str]
) -> None:
    container = {"name": "look", "image": image, "command": ["python", "-c", _LOOK]}
    found = json.loads(await namespace.run_to_end(restricted_pod(container, "/store")))
    assert found["user"] == 65532
    assert set(found["commands"]) >= has
    assert not set(found["commands"]) & has_not
    assert found["modules"] == modules
