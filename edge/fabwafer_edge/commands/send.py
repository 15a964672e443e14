"""`fabwafer send`: publishes image files as a camera does."""

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.connections import mqtt_listener
from fabwafer.commands.options import Data, Json
from fabwafer.commands.system import CAMERA_FILE, data_directory
from fabwafer.commands.text import one_line
from fabwafer.errors import FabwaferError

if TYPE_CHECKING:
    from fabwafer.messages.bodies import Image
    from fabwafer_edge.camera import Camera, Credentials

app = Commands()


class NothingSentError(FabwaferError):
    """The images cannot be sent as asked for. The text says why; none was sent."""


@app.command()
async def send(
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG files.")],
    fab: Annotated[str | None, typer.Option(help="The camera's fab; default: the user's.")] = None,
    camera: Annotated[str | None, typer.Option(help="The camera's name; default: the user's.")] = None,
    user: Annotated[str | None, typer.Option(envvar="FABWAFER_DEVICE_USER", help="From `fabwafer device add`.")] = None,
    password: Annotated[str | None, typer.Option(envvar="FABWAFER_DEVICE_PASSWORD", help="Its password.")] = None,
    client_id: Annotated[
        str | None, typer.Option(help="The MQTT client id; default: the user with '_' for the dot.")
    ] = None,
    lot: Annotated[str | None, typer.Option(help="The wafers' lot; training splits reviews by it.")] = None,
    slot: Annotated[str | None, typer.Option(help="The wafer's slot in its carrier.")] = None,
    product: Annotated[str | None, typer.Option(help="The product.")] = None,
    tool: Annotated[str | None, typer.Option(help="The tool that processed the wafers.")] = None,
    step: Annotated[str | None, typer.Option(help="The process step.")] = None,
    notch: Annotated[str | None, typer.Option(help="Where the notch is.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Images a second; default: as fast as possible.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for predictions.")] = 10.0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Publish image files over MQTT as a camera, and show the model's predictions.

    Exits with 0 when all images are stored, 1 when one is not, 2 for a wrong option, 3 when the listener refuses the
    user.
    """
    from fabwafer_edge.camera import Camera

    credentials = _credentials(fab, camera, user, password, data)
    listener = mqtt_listener(data)
    context = {"lot": lot, "slot": slot, "product": product, "tool": tool, "step": step, "notch": notch}
    messages = _messages(images, credentials, {name: value for name, value in context.items() if value})
    if not await _send(Camera(listener, credentials, _checked(client_id)), messages, rate, wait, as_json):
        raise typer.Exit(1)


def _credentials(
    fab: str | None, camera: str | None, user: str | None, password: str | None, data: Path | None
) -> "Credentials":
    from fabwafer_edge.camera import Credentials

    if user is not None or password is not None:
        if not (user and password):
            raise NothingSentError(
                "expected a user and a password together (--user or FABWAFER_DEVICE_USER, --password or "
                f"FABWAFER_DEVICE_PASSWORD), got only a {'user' if user else 'password'}; nothing was sent"
            )
        own_fab, dot, own_camera = user.partition(".")
        if not (own_fab and dot and own_camera) or "." in own_camera:
            raise NothingSentError(
                f"expected a user FAB.CAMERA from `fabwafer device add`, got {user!r}; nothing was sent"
            )
        # The listener acknowledges what a device publishes under another's name and drops it: nobody would notice.
        if (fab or own_fab, camera or own_camera) != (own_fab, own_camera):
            raise NothingSentError(
                f"the user {user!r} may only send as --fab {own_fab} --camera {own_camera}, "
                f"got --fab {fab or own_fab} --camera {camera or own_camera}; nothing was sent"
            )
        return Credentials(own_fab, own_camera, user, password)
    own = data_directory(data) / CAMERA_FILE
    local = data is not None or "FABWAFER_MQTT_URL" not in os.environ
    known = json.loads(own.read_text()) if local and own.exists() else None
    if known is None or (fab or known["fab"]) != known["fab"] or (camera or known["camera"]) != known["camera"]:
        name = f"{fab or 'FAB'} {camera or 'CAMERA'}"
        raise NothingSentError(
            f"expected --user and --password: get them with `fabwafer device add {name}`; nothing was sent"
        )
    return Credentials(known["fab"], known["camera"], known["user"], known["password"])


def _checked(client_id: str | None) -> str | None:
    """Return the client id; the listener refuses some for ever, and a camera would go on trying."""
    if client_id is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", client_id):
        raise NothingSentError(
            f"--client-id: expected 1 to 200 letters, digits, '_' or '-', got {client_id!r}; nothing was sent"
        )
    return client_id


def _messages(files: list[Path], credentials: "Credentials", context: dict[str, str]) -> "dict[Path, Image]":
    """Read all files, before any is sent."""
    from fabwafer.messages.bodies import LONGEST_TEXT
    from fabwafer_edge.camera import imgid_of

    named: dict[str, Path] = {}
    for file in files:
        first = named.setdefault(imgid := imgid_of(file.stem), file)
        if first is not file:
            raise NothingSentError(
                f"{first} and {file} would both be sent as image {imgid!r}: rename one, so that the names differ in "
                "the letters, digits, '_' and '-' of their first 64 characters; nothing was sent"
            )
    for name, value in context.items():
        if len(value) > LONGEST_TEXT:
            raise NothingSentError(
                f"--{name}: expected at most {LONGEST_TEXT} characters, got {len(value)}; nothing was sent"
            )
    return {file: _message(file, imgid, credentials, context) for imgid, file in named.items()}


def _message(file: Path, imgid: str, credentials: "Credentials", context: dict[str, str]) -> "Image":
    from fabwafer.maps.image_file import BadImageError, probe
    from fabwafer.messages.bodies import Image

    try:
        content = file.read_bytes()
        probe(content)
    except BadImageError as error:
        raise NothingSentError(f"{file}: {error}; nothing was sent") from None
    except OSError as error:
        found = {FileNotFoundError: "there is no such file", IsADirectoryError: "this is a directory"}
        reason = found.get(type(error), f"it cannot be read ({error.strerror})")
        raise NothingSentError(f"{file}: expected a PNG or JPEG file, {reason}; nothing was sent") from None
    return Image.of_file(
        content,
        imgid=imgid,
        timestamp=time.time_ns() // 1_000_000,
        fab=credentials.fab,
        camera=credentials.camera,
        **context,
    )


async def _send(
    camera: "Camera", messages: "dict[Path, Image]", rate: float | None, wait: float, as_json: bool
) -> bool:
    """Send images, print a line for each as soon as it is predicted, and return whether all were stored."""
    # By the timestamp as well: a prediction for an earlier image of the same name can arrive late.
    files = {(image.imgid, image.timestamp): file for file, image in messages.items()}
    stored: set[tuple[str, int]] = set()
    predicted: set[tuple[str, int]] = set()

    async def show() -> None:
        while len(predicted) < len(files):
            prediction = await camera.predictions.get()
            shot = (prediction.get("imgid"), prediction.get("timestamp"))
            if shot in files and shot not in predicted:
                predicted.add(shot)
                _show(files[shot], {"stored": True, **prediction}, as_json)

    async def publish() -> None:
        async for image in camera.publish(list(messages.values()), rate=rate, wait=wait):
            stored.add((image.imgid, image.timestamp))

    publishing, showing = asyncio.create_task(publish()), asyncio.create_task(show())
    await asyncio.wait([publishing, showing] if wait else [publishing], return_when=asyncio.FIRST_COMPLETED)
    for task in (publishing, showing):
        if task.done():
            task.result()
        task.cancel()
    for shot, file in files.items():
        if shot not in predicted:
            _show(file, {"imgid": shot[0], "timestamp": shot[1], "stored": shot in stored}, as_json)
    return stored | predicted >= files.keys()


def _show(file: Path, shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        fields = (
            "stored",
            "imgid",
            "prediction",
            "probability",
            "wafer",
            "review",
            "review_reason",
            "review_detail",
            "model",
            "timestamp",
        )
        print(json.dumps({"image": str(file), **{name: shown.get(name) for name in fields}}), flush=True)
    elif "prediction" in shown:
        reason = shown.get("review_detail") or shown.get("review_reason")
        more = f" (a person should look: {one_line(str(reason))})" if reason else ""
        print(f"{file}: {shown['prediction']} {shown['probability']:.0%}{more}", flush=True)
    else:
        print(f"{file}: {'stored, no prediction yet' if shown['stored'] else 'NOT stored'}", flush=True)
