"""The program helm: the one on the PATH."""

import asyncio
import os
from pathlib import Path

CHART = Path(__file__).parent.parent / "charts" / "fabwafer"
VALUES = Path(__file__).parent / "values.yaml"


class HelmError(RuntimeError):
    """helm failed. The text is what it printed."""


async def helm(*arguments: str) -> str:
    """Run helm and return what it printed.

    Raises:
        HelmError: It failed.
    """
    process = await asyncio.create_subprocess_exec(
        "helm", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=os.environ
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise HelmError(f"helm {' '.join(arguments)}: {printed.decode()}")
    return printed.decode()
