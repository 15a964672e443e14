"""Prints how wafer maps drawn in many ways, and pictures that are none, are read.

Run from the repository's root: `python -m benchmarks.drawings`. Real maps are used where they are found
(FABWAFER_WM811K names the file wm811k_dev.npz), else synthetic ones. Times are processor time.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fabwafer.maps import synthetic
from fabwafer.maps.scaling import scale
from fabwafer.maps.wafermap import decode, encode
from fabwafer.models.classifier import Classifier
from fabwafer.models.shipped import default_model
from tests.support import wm811k
from tests.support.drawing_table import accepted, read_way
from tests.support.drawings import WAYS, Grid
from tests.support.non_wafers import KINDS


def _grids(count: int, seed: int) -> tuple[str, list[Grid]]:
    try:
        total = len(wm811k.labels())
    except pytest.skip.Exception:
        return "synthetic", [grid for _, grid in synthetic.sample(seed, count)]
    rows = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    return "real", wm811k.maps(rows)


def _milliseconds(seconds: list[float]) -> str:
    return f"{np.percentile(seconds, 50) * 1e3:7.2f} {np.percentile(seconds, 99) * 1e3:7.2f}"


def _time(name: str, call: object, argument: object) -> None:
    assert callable(call)
    seconds = []
    for _ in range(500):
        start = time.thread_time()
        call(argument)
        seconds.append(time.thread_time() - start)
    print(f"{name:44s} {_milliseconds(seconds)}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=2000, help="maps drawn in each way")
    parser.add_argument("--non-wafers", type=int, default=500, help="pictures of all kinds together")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--way", default="", help="only ways whose name contains this")
    parser.add_argument("--model", type=Path, default=default_model())
    options = parser.parse_args()
    classifier = Classifier(options.model) if (options.model / "card.json").exists() else None
    source, grids = _grids(options.maps, options.seed)
    print(f"{len(grids)} {source} maps, seed {options.seed}")
    if classifier is not None:
        print(f"labels by model {classifier.card.version}, {classifier.variant}")
    print(f"{'way of drawing':44s} refused %   exact %  agree %  review %  silent %  p50 ms  p99 ms")
    for way in (name for name in WAYS if options.way in name):
        print(way, file=sys.stderr)
        result = read_way(way, grids, classifier)
        refused, exact = len(result.refused) / result.maps, result.exact / result.maps
        agreed = f"{result.agreement:8.2%}" if classifier is not None else "       -"
        review, silent = len(result.doubted) / result.maps, len(result.silent) / result.maps
        print(
            f"{way:44s} {refused:9.2%} {exact:9.2%} {agreed} {review:9.2%} {silent:9.2%} "
            f"{_milliseconds(result.seconds)}",
            flush=True,
        )
    each = max(1, options.non_wafers // len(KINDS))
    print(f"\n{'kind of non-wafer':44s}  accepted")
    total = 0
    for kind in KINDS:
        print(kind, file=sys.stderr)
        taken = accepted(kind, each, options.seed)
        total += len(taken)
        print(f"{kind:44s} {len(taken) / each:9.2%}  {', '.join(sorted(taken))}", flush=True)
    print(f"{'all':44s} {total / (each * len(KINDS)):9.2%}")
    print(f"\n{'one call':44s}  p50 ms  p99 ms")
    rng = np.random.default_rng(1)
    for side in (50, 200):
        grid = synthetic.make(rng, "Edge-Ring", side, side)
        _time(f"decode, native, {side} x {side}", decode, encode(grid))
        _time(f"scale, {side} x {side}", scale, grid)


if __name__ == "__main__":
    with threadpool_limits(1):  # as a server's worker has it
        main()
