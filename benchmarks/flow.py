"""From MQTT to committed records, under steady load and flooded: `python -m benchmarks.flow`.

Everything runs on this machine, the load included: NATS, TorchServe, the bridge and the records in processes of their
own, as `fabwafer up` starts them. What can be reached is measured in the same run: the classifier alone, in one process
for each core, over the same maps.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import nats
import numpy as np
import psutil
from nats.aio.msg import Msg
from sqlalchemy import create_engine, text

from benchmarks.mqtt_load import Connection, flood, steady
from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.models.card import read_card
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from fabwafer.records import migrate
from tests.support import wm811k
from tests.support.nats_servers import NatsServer, add_device
from tests.support.postgres import fresh_database, running_postgres
from tests.support.running import Bridge, ModelServer

MAPS = 512
CONNECTIONS = 50
STEADY_RATE = 200.0
IN_FLIGHT = 8
"""Messages that a flooding camera has without a PUBACK."""
UNDER_WAY = 400
"""Images without a prediction, over all cameras, where the cameras wait for their answers."""


def maps() -> tuple[str, list[bytes]]:
    """Native drawings of wafer maps, real ones where the user has them, and what they are."""
    try:
        rows = np.random.default_rng(4).choice(len(wm811k.labels()), MAPS, replace=False)
        return "real maps", [encode(grid) for grid in wm811k.maps(rows)]
    except BaseException as missing:  # pytest's skip is no Exception
        if "real wafer maps" not in str(missing):
            raise
        return "synthetic maps", [encode(grid) for _, grid in sample(4, MAPS)]


def _classify_for(images: list[bytes], seconds: float, rates: "multiprocessing.Queue[float]", batch: int) -> None:
    classifier = Classifier(default_model())
    classifier.classify(images[:batch])
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = done % (len(images) - batch)
        done += len(classifier.classify(images[start : start + batch]))
    rates.put(done / (time.perf_counter() - begin))


def in_process_rate(images: list[bytes], seconds: float, batch: int = 16) -> float:
    """Images a second that the int8 classifier alone does with one process for each core."""
    context = multiprocessing.get_context("spawn")
    rates: multiprocessing.Queue[float] = context.Queue()
    workers = [
        context.Process(target=_classify_for, args=(images, seconds, rates, batch)) for _ in range(os.cpu_count() or 1)
    ]
    for worker in workers:
        worker.start()
    total = sum(rates.get(timeout=seconds + 60) for _ in workers)
    for worker in workers:
        worker.join()
    return total


@dataclass
class Result:
    """One scenario's figures; rates in images a second, latencies in milliseconds, memory in MB."""

    sync_interval: str
    database: str
    steady_p50: float
    steady_p99: float
    steady_sent: int
    steady_predicted: int
    waiting_rate: float
    flooded_rate: float
    flooded_pubacks: float
    share_of_in_process: float
    memory: dict[str, int]
    cpu: dict[str, float]


class Scenario:
    """A running system and its cameras."""

    def __init__(self, server: NatsServer, bridge: Bridge, model_server: ModelServer, database_url: str) -> None:
        self.server, self.bridge, self.model_server = server, bridge, model_server
        self.engine = create_engine(database_url)

    @staticmethod
    def messages(images: list[bytes], run: str) -> Callable[[int, int], tuple[str, bytes]]:
        """Make the function that makes messages: the n-th of a camera is a wafer of its own."""
        parts = [base64.b64encode(image).decode() for image in images]

        def message(index: int, number: int) -> tuple[str, bytes]:
            imgid = f"{run}-{index}-{number}"
            body = (
                f'{{"imgid":"{imgid}","timestamp":{1700000000000 + number},"fab":"bench","camera":"cam{index}",'
                f'"bytes":"{parts[(index * 131 + number) % len(parts)]}"}}'
            )
            return f"fabwafer/bench/cam{index}/img/{imgid}", body.encode()

        return message

    def recorded(self) -> int:
        """Predictions that are committed."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("select count(*) from predictions")).scalar_one())

    def processes(self) -> dict[str, psutil.Process]:
        """Return the processes that are measured."""
        worker = next(p for p in psutil.Process(self.model_server.pid).children(recursive=True) if "python" in p.name())
        return {
            "nats-server": psutil.Process(self.server.pid),
            "bridge": psutil.Process(self.bridge.pid),
            "TorchServe JVM": psutil.Process(self.model_server.pid),
            "TorchServe worker": worker,
            "load": psutil.Process(),
        }


async def measure(
    scenario: Scenario, cameras: list[tuple[str, str]], images: list[bytes], seconds: float
) -> dict[str, object]:
    """Run the steady load and then the flood."""
    connections = [Connection(IN_FLIGHT) for _ in cameras]
    for index, (connection, (user, password)) in enumerate(zip(connections, cameras, strict=True)):
        await connection.open(scenario.server.mqtt_url, user, password, f"bench{index}")
    listener = await nats.connect(scenario.server.url)
    sent: dict[str, float] = {}
    latencies: list[float] = []

    async def predicted(message: Msg) -> None:
        begin = sent.pop(message.subject.rpartition(".")[2], None)
        if begin is not None:
            latencies.append((time.perf_counter() - begin) * 1000)

    subscription = await listener.subscribe("fabwafer.bench.*.prediction.*", cb=predicted)
    # A warm-up of the whole way: what starts cold is not what a fab sees.
    message = scenario.messages(images, "warm")
    await steady(connections, message, STEADY_RATE, 3, lambda *_: None)
    await asyncio.sleep(2)
    message = scenario.messages(images, "steady")
    latencies.clear()

    def note(index: int, number: int) -> None:
        sent[f"steady-{index}-{number}"] = time.perf_counter()

    total = await steady(connections, message, STEADY_RATE, seconds, note)
    for _ in range(200):
        if not sent:
            break
        await asyncio.sleep(0.1)
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (float("nan"), float("nan"))
    predicted_count = len(latencies)
    await subscription.unsubscribe()

    # As fast as answers come: every camera waits for its own.
    room, stop = asyncio.Semaphore(UNDER_WAY), asyncio.Event()

    async def answered(_: Msg) -> None:
        room.release()

    subscription = await listener.subscribe("fabwafer.bench.*.prediction.*", cb=answered)
    waiting = asyncio.create_task(flood(connections, scenario.messages(images, "waiting"), stop, room))
    await asyncio.sleep(3)
    before, begin = scenario.recorded(), time.perf_counter()
    await asyncio.sleep(seconds / 3)
    waiting_rate = (scenario.recorded() - before) / (time.perf_counter() - begin)
    stop.set()
    waiting.cancel()
    await subscription.unsubscribe()
    await asyncio.sleep(2)

    stop = asyncio.Event()
    flooding = asyncio.create_task(flood(connections, scenario.messages(images, "flood"), stop))
    await asyncio.sleep(min(5, seconds / 4))  # until the queues have the length that they keep
    processes = scenario.processes()
    cpu = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    before, pubacks, begin = scenario.recorded(), sum(c.acknowledged for c in connections), time.perf_counter()
    await asyncio.sleep(seconds)
    after, elapsed = scenario.recorded(), time.perf_counter() - begin
    acknowledged = sum(c.acknowledged for c in connections) - pubacks
    cpu = {name: (sum(process.cpu_times()[:2]) - cpu[name]) / elapsed for name, process in processes.items()}
    memory = {name: process.memory_info().rss // 2**20 for name, process in processes.items()}
    stop.set()
    flooding.cancel()
    for connection in connections:
        connection.close()
    await listener.close()
    return {
        "steady_p50": round(float(p50), 1),
        "steady_p99": round(float(p99), 1),
        "steady_sent": total,
        "steady_predicted": predicted_count,
        "waiting_rate": round(waiting_rate, 1),
        "flooded_rate": round((after - before) / elapsed, 1),
        "flooded_pubacks": round(acknowledged / elapsed, 1),
        "memory": memory,
        "cpu": {name: round(share, 2) for name, share in cpu.items()},
    }


@contextmanager
def system(directory: Path, sync_interval: str, database_url: str, model_server: ModelServer) -> Iterator[Scenario]:
    """Run a system with empty streams and records."""
    migrate(database_url)
    with NatsServer(directory / "nats", sync_interval=sync_interval) as server:
        bridge = Bridge(directory, nats_url=server.url, inference_url=model_server.url, database_url=database_url)
        try:
            bridge.start()
            yield Scenario(server, bridge, model_server, database_url)
        finally:
            bridge.stop()


def main() -> None:
    """Run all scenarios, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--sync", choices=("always", "2m"), action="append")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    kind, images = maps()
    card = read_card(default_model())

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    say(f"{len(images)} {kind}, model {card.name} {card.version} int8, {os.cpu_count()} cores")
    limit = in_process_rate(images, min(chosen.seconds, 20))
    say(f"in-process int8, one process a core: {limit:.0f} images/s")
    results = []
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fabwafer-bench-")))
        model_server = ModelServer(root / "torchserve")
        stack.callback(model_server.stop)
        model_server.start()
        for database in chosen.database or ("sqlite", "postgresql"):
            for sync_interval in chosen.sync or ("always", "2m"):
                directory = root / f"{database}-{sync_interval}"
                directory.mkdir()
                with ExitStack() as each:
                    if database == "sqlite":
                        url = f"sqlite:///{directory / 'records.db'}"
                    else:
                        url = each.enter_context(fresh_database(each.enter_context(running_postgres(durable=True))))
                    scenario = each.enter_context(system(directory, sync_interval, url, model_server))
                    cameras = [add_device(scenario.server, "bench", f"cam{i}") for i in range(CONNECTIONS)]
                    figures = asyncio.run(measure(scenario, cameras, images, chosen.seconds))
                result = Result(
                    sync_interval=sync_interval,
                    database=database,
                    share_of_in_process=round(float(str(figures["flooded_rate"])) / limit, 3),
                    **figures,  # type: ignore[arg-type]
                )
                results.append(result)
                say(json.dumps(asdict(result)))
    if chosen.json:
        print(
            json.dumps(
                {"maps": kind, "model": card.version, "in_process": limit, "results": [asdict(r) for r in results]}
            )
        )
        return
    print(
        f"\nmodel {card.name} {card.version} int8, {kind}; in-process {limit:.0f} images/s on {os.cpu_count()} cores\n"
    )
    print(
        "| records | sync_interval | 200/s: p50, p99 ms | cameras wait: images/s (share) | flooded: images/s (share) |"
    )
    print("|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r.database} | {r.sync_interval} | {r.steady_p50}, {r.steady_p99} "
            f"| {r.waiting_rate} ({r.waiting_rate / limit:.2f}) | {r.flooded_rate} ({r.share_of_in_process:.2f}) |"
        )
    for r in results:
        print(f"\n{r.database}, {r.sync_interval}, flooded: MB {r.memory}; share of a core {r.cpu}")


if __name__ == "__main__":
    main()
