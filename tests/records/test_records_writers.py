"""Several writers at once store everything once; one that is killed stores all of a batch or nothing."""

import multiprocessing
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from fabwafer.records import Records
from tests.support.records import predicted, shot

WAFERS = 200


def store_all(url: str, order: Sequence[int]) -> tuple[int, int, int]:
    """Stores a shot and a prediction of each wafer; returns how many shots and predictions were new, and alerts."""
    with Records(url) as records:
        return store_in(records, order)


def store_in(records: Records, order: Sequence[int]) -> tuple[int, int, int]:
    new_shots = new_predictions = alerts = 0
    for start in range(0, len(order), 20):
        part = order[start : start + 20]
        new_shots += records.store_shots([shot(imgid=f"i{number}", sequence=number) for number in part])
        stored = records.store_predictions([predicted(imgid=f"i{number}", sequence=number) for number in part])
        new_predictions += len(stored.new)
        alerts += len(stored.alerts)
    return new_shots, new_predictions, alerts


def orders() -> list[list[int]]:
    numbers = list(range(WAFERS))
    return [numbers, numbers[::-1], numbers[::3] + numbers[1::3] + numbers[2::3], numbers[100:] + numbers[:100]]


def check_everything_once(url: str, results: list[tuple[int, int, int]]) -> None:
    assert [sum(column) for column in zip(*results, strict=True)] == [WAFERS, WAFERS, WAFERS]
    with Records(url) as records:
        found = list(records.wafers())
        assert len(found) == WAFERS
        assert all(len(record.shots) == len(record.predictions) == 1 for record in found)
        assert len(records.pending_alerts(limit=2 * WAFERS)) == WAFERS


def test_processes_storing_the_same_wafers_store_each_once(database: str) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        done = [processes.submit(store_all, database, order) for order in orders()]
        check_everything_once(database, [one.result(timeout=120) for one in done])


def test_threads_storing_the_same_wafers_store_each_once(database: str) -> None:
    with Records(database) as records, ThreadPoolExecutor(4) as threads:
        done = [threads.submit(store_in, records, order) for order in orders()]
        results = [one.result(timeout=120) for one in done]
    check_everything_once(database, results)


ENDLESS_WRITER = textwrap.dedent("""
    import itertools, sys
    from fabwafer.records import Records
    from tests.support.records import predicted
    with Records(sys.argv[1]) as records:
        for batch in itertools.count():
            records.store_predictions([predicted(imgid=f"b{batch}-{number}") for number in range(50)])
            print(batch, flush=True)
""")


def test_a_killed_writer_leaves_whole_batches_with_their_alerts(database: str) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, database], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(7):
            assert writer.stdout.readline()
        writer.kill()
        acknowledged = 7 + len(writer.stdout.read().splitlines())

    with Records(database) as records:
        found = list(records.wafers())
        assert len(found) % 50 == 0
        assert len(found) >= acknowledged * 50
        assert all(record.predictions[0].alert for record in found)
        assert len(records.pending_alerts(limit=2 * len(found))) == len(found)
