"""The sample camera: writes synthetic wafer maps as image files, and publishes them as an inspection camera does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fabwafer.commands.system import CAMERA_FILE
from fabwafer.errors import CREDENTIALS_REFUSED
from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.service.files import replace_file
from fabwafer_local.supervisor import Supervisor, fabwafer_command

SEED: Final = 20
SCALE: Final = 4
"""Pixels along a die's side: small files, but large enough to look at."""

FAB: Final = "demo"
CAMERA: Final = "camera1"
CLIENT_ID: Final = f"{FAB}_{CAMERA}_samples"
"""Not the default one: somebody may run `fabwafer send` for this camera while the samples are sent."""


def write_samples(directory: Path, count: int) -> list[Path]:
    """Write synthetic wafer maps of all classes as PNG files named by class; the same ones each time.

    Args:
        directory: Made where it is missing.
        count: How many.

    Returns:
        The files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (label, grid) in enumerate(sample(seed=SEED, n=count), start=1):
        file = directory / f"{number:03d}-{label}.png"
        file.write_bytes(encode(grid, scale=SCALE))
        files.append(file)
    return files


class SampleCamera:
    """The camera that a local system adds for its samples, and for `fabwafer send`.

    Args:
        directory: The system's data directory; the camera's password is stored there for the next start.
        supervisor: Runs the programs.
        say: Shows the user what happens, a line at a time.
    """

    def __init__(self, directory: Path, supervisor: Supervisor, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._file = directory / CAMERA_FILE
        self._supervisor = supervisor
        self._say = say

    async def make(self) -> None:
        """Get credentials for the camera, unless they are there from an earlier start."""
        if not self._file.exists():
            await self._get_credentials()

    async def _get_credentials(self) -> bool:
        complaint = ""
        for verb in ("add", "rotate"):  # where the camera exists and its password is lost, it gets a new one
            done = await self._supervisor.run(
                f"device {verb}",
                fabwafer_command("device", verb, FAB, CAMERA, "--data", str(self._directory), "--json"),
            )
            if done.code == 0:
                credentials = {"fab": FAB, "camera": CAMERA, **json.loads(done.printed)}
                try:
                    replace_file(self._file, json.dumps(credentials))
                except OSError as error:
                    complaint = str(error)
                    break
                return True
            complaint = done.complaint
        self._say(f"the sample camera got no credentials: {complaint}")
        return False

    async def send(self, images: list[Path], rate: float) -> None:
        """Publish images, from a process of its own. A failure is shown to the user, and ends nothing else.

        Args:
            images: PNG or JPEG files.
            rate: Images a second.
        """
        argv = [
            *fabwafer_command("send", "--data", str(self._directory), "--wait", "0", "--rate", str(rate), "--json"),
            *("--client-id", CLIENT_ID),
            *map(str, images),
        ]
        done = await self._supervisor.run("send", argv)
        # Refused: the password was changed, or the device revoked, since it was stored.
        if done.code == CREDENTIALS_REFUSED and await self._get_credentials():
            done = await self._supervisor.run("send", argv)
        if done.code:
            self._say(f"the samples could not be sent: {done.complaint}")
