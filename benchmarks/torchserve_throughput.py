"""How many images a second the model servers answer, beside what the classifier does in one process.

    python benchmarks/torchserve_throughput.py [--seconds 10] [--clients 16]

Synthetic wafer maps drawn natively, the shipped int8 model, V2 over HTTP on loopback, every server with one worker and
one thread for the model. Clients and servers share the machine, so the figures are for all of it.
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.models.classifier import Classifier
from fabwafer.models.key_file import authorization
from fabwafer.models.model_server import ServerUnavailableError
from fabwafer.models.shipped import default_model
from fabwafer_local import torchserve
from fabwafer_local.ports import free_ports

REQUEST_SIZES = (1, 8, 32)
_JSON = {"Content-Type": "application/json"}
_CHECKOUT = Path(__file__).parent.parent


def in_process(images: list[bytes], size: int, seconds: float) -> float:
    """Images a second of the classifier called directly with `size` images at a time."""
    classifier = Classifier(default_model())
    batches = itertools.cycle([images[i : i + size] for i in range(0, len(images), size)])
    classifier.classify(next(batches))
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        done += len(classifier.classify(next(batches)))
    return done / (time.perf_counter() - start)


def body(images: list[bytes]) -> bytes:
    """Return a V2 request."""
    data = [base64.b64encode(image).decode() for image in images]
    return json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}]}).encode()


async def over_http(
    url: str, headers: dict[str, str], images: list[bytes], size: int, seconds: float, clients: int
) -> tuple[float, float]:
    """Images a second, and the median milliseconds of a request, with `clients` that always have one under way."""
    bodies = itertools.cycle([body(images[i : i + size]) for i in range(0, len(images), size)])
    times: list[float] = []
    async with aiohttp.ClientSession(headers=headers) as session:

        async def client(until: float) -> None:
            while (start := time.perf_counter()) < until:
                async with session.post(f"{url}/v2/models/wafer/infer", data=next(bodies)) as response:
                    await response.read()
                    if response.status != 200:
                        raise RuntimeError(f"{url} answered {response.status}")
                times.append(time.perf_counter() - start)

        await asyncio.gather(*(client(time.perf_counter() + 1) for _ in range(clients)))  # warm
        times.clear()
        start = time.perf_counter()
        await asyncio.gather(*(client(start + seconds) for _ in range(clients)))
        elapsed = time.perf_counter() - start
    return len(times) * size / elapsed, sorted(times)[len(times) // 2] * 1000


async def _ready(url: str, key_file: Path | None) -> dict[str, str]:
    """Wait until a server answers, and return the headers that it takes requests with."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        for _ in range(600):
            try:
                headers = _JSON | authorization(key_file, "inference")
                async with session.post(f"{url}/v2/models/wafer/infer", data=body([b"?"]), headers=headers) as response:
                    if response.status == 200:
                        return headers
            except (aiohttp.ClientError, TimeoutError, OSError, ServerUnavailableError):
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError(f"no server at {url}")


@contextmanager
def _running(argv: list[str], env: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Print one line for each way and each request size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="TorchServe's Python workers")
    arguments = parser.parse_args()
    images = [encode(grid) for _, grid in sample(0, 256)]
    limits = {}
    for size in REQUEST_SIZES:
        limits[size] = in_process(images, size, arguments.seconds)
        print(f"in process    {size:3} at a time: {limits[size]:6.0f} images/s", flush=True)

    ports = free_ports(6)
    with tempfile.TemporaryDirectory() as directory:
        archive = torchserve.build_archive(Path(directory), default_model())
        spec = torchserve.prepare(Path(directory), archive, torchserve.TorchServePorts(*ports[:5]), arguments.workers)
        kserve = [sys.executable, str(_CHECKOUT / "tests" / "support" / "kserve_loopback.py"), "--enable_grpc", "false"]
        kserve += ["--http_port", str(ports[5]), "--model_dir", str(default_model())]
        servers = [
            ("TorchServe", ports[0], spec.argv, dict(spec.env), spec.key_file),
            ("kserve.Model", ports[5], kserve, {**os.environ, "PYTHONPATH": str(_CHECKOUT)}, None),
        ]
        for name, port, argv, env, key_file in servers:
            url = f"http://127.0.0.1:{port}"
            with _running(argv, env):
                headers = asyncio.run(_ready(url, key_file))
                for size in REQUEST_SIZES:
                    rate, median = asyncio.run(
                        over_http(url, headers, images, size, arguments.seconds, arguments.clients)
                    )
                    share = rate / limits[size]
                    print(
                        f"{name:13} {size:3} a request: {rate:6.0f} images/s, {share:4.0%}, median {median:.0f} ms",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
