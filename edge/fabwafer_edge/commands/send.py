"""`fabwafer send`: publishes image files as a camera does."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabwafer.system import CAMERA_FILE, SystemNotFoundError, address, data_directory

if TYPE_CHECKING:
    from fabwafer.messages import Image
    from fabwafer_edge.camera import Camera, Credentials

app = typer.Typer()


@app.command()
def send(
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG files.")],
    fab: Annotated[str | None, typer.Option(help="The camera's fab.")] = None,
    camera: Annotated[str | None, typer.Option(help="The camera's name.")] = None,
    user: Annotated[str | None, typer.Option(envvar="FABWAFER_DEVICE_USER", help="From `fabwafer device add`.")] = None,
    password: Annotated[str | None, typer.Option(envvar="FABWAFER_DEVICE_PASSWORD", help="The same.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Images a second; default: as fast as they go.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for predictions.")] = 10.0,
    data: Annotated[Path | None, typer.Option(help="The system's data directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Publish image files over MQTT as a camera, and show what the model says of them."""
    from fabwafer_edge.camera import Camera, CameraRefusedError

    try:
        credentials = _credentials(fab, camera, user, password, data)
        mqtt = address("mqtt_url", data)
        messages = [_message(file, credentials) for file in images]
        ok = asyncio.run(_send(Camera(mqtt, credentials), images, messages, rate, wait, as_json))
    except (SystemNotFoundError, CameraRefusedError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    if not ok:
        raise typer.Exit(1)


def _credentials(
    fab: str | None, camera: str | None, user: str | None, password: str | None, data: Path | None
) -> "Credentials":
    from fabwafer_edge.camera import Credentials

    if user and password:
        if not (fab and camera):
            raise ValueError("expected --fab and --camera beside a user and a password")
        return Credentials(fab, camera, user, password)
    own = data_directory(data) / CAMERA_FILE
    known = json.loads(own.read_text()) if own.exists() and "FABWAFER_MQTT_URL" not in os.environ else None
    if known is None or (fab or known["fab"]) != known["fab"] or (camera or known["camera"]) != known["camera"]:
        name = f"{fab or 'FAB'} {camera or 'CAMERA'}"
        raise ValueError(f"expected --user and --password: get them with `fabwafer device add {name}`")
    return Credentials(known["fab"], known["camera"], known["user"], known["password"])


def _message(file: Path, credentials: "Credentials") -> "Image":
    from fabwafer.imagefile import BadImageError, probe
    from fabwafer.messages import Image
    from fabwafer_edge.camera import imgid_of

    content = file.read_bytes()
    try:
        probe(content)
    except BadImageError as error:
        raise ValueError(f"{file}: {error}") from None
    return Image.of_file(
        content,
        imgid=imgid_of(file.stem),
        timestamp=time.time_ns() // 1_000_000,
        fab=credentials.fab,
        camera=credentials.camera,
    )


async def _send(
    camera: "Camera", files: list[Path], messages: "list[Image]", rate: float | None, wait: float, as_json: bool
) -> bool:
    """Sends, and shows a line for each image as soon as its prediction is there; returns whether all were stored."""
    names = {message.imgid: str(file) for file, message in zip(files, messages, strict=True)}
    stored: set[str] = set()
    predicted: dict[str, dict[str, Any]] = {}

    async def show() -> None:
        while len(predicted) < len(names):
            said = await camera.predictions.get()
            if said["imgid"] in names and said["imgid"] not in predicted:
                predicted[said["imgid"]] = said
                _show(names[said["imgid"]], said, as_json)

    async def publish() -> None:
        async for image in camera.publish(messages, rate=rate, wait=wait):
            stored.add(image.imgid)

    publishing, showing = asyncio.create_task(publish()), asyncio.create_task(show())
    await asyncio.wait([publishing, showing] if wait else [publishing], return_when=asyncio.FIRST_COMPLETED)
    showing.cancel()
    if publishing.done():
        publishing.result()
    else:
        publishing.cancel()
    for imgid in names.keys() - predicted.keys():
        _show(names[imgid], {"imgid": imgid, "stored": imgid in stored}, as_json)
    return stored | predicted.keys() >= names.keys()


def _show(file: str, said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        fields = ("imgid", "prediction", "probability", "wafer", "model", "timestamp")
        line = {"image": file, "stored": said.get("stored", True), **{name: said.get(name) for name in fields}}
        print(json.dumps(line), flush=True)
    elif "prediction" in said:
        print(f"{file}: {said['prediction']} {said['probability']:.0%}", flush=True)
    else:
        print(f"{file}: {'stored, no prediction yet' if said['stored'] else 'NOT stored'}", flush=True)
