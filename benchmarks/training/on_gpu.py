"""Trains the shipped model on a GPU in minutes: several networks, and from their answers the one that ships.

`python -m benchmarks.training.on_gpu wm811k_dev.npz compare` compares recipes on a few epochs each; `train` trains the
teachers, the network of run A (a fifth of the lots held out) and that of run B (all but the gold half of that fifth);
`doubt` asks each map's label of networks that never saw its lot, and hides each class from a network in turn. Files and
figures go to `--out`. The networks' files are then written by `benchmarks.training.pack`.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.training.graphed import Lesson, Recipe, Run, go, outputs, start
from fabwafer.models.likeness import Likeness
from fabwafer_training.augment import DRAWINGS, draw_many
from fabwafer_training.calibrate import fit_prior, fit_temperature, log_prior, softmax
from fabwafer_training.dataset import Dataset, numbered
from fabwafer_training.epochs import add_mixed_weights, even_weights
from fabwafer_training.job import classes_of
from fabwafer_training.metrics import area_under_curve, measure, measure_patterns, recall_at
from fabwafer_training.mixing import mix
from fabwafer_training.network import Shape, parameters
from fabwafer_training.readers import read
from fabwafer_training.soft_targets import distil, smooth_labels, with_patterns
from fabwafer_training.splits import clean, gold_half, grouped_folds, held_out_from_training
from fabwafer_training.train import Settings
from fabwafer_training.weights import read_arrays, write_weights

SHAPE = Shape((32, 64, 128, 256), 2, excitation=True, pyramid=True, patterns=True)
RATE_STEPS = 60
COMPILING_PAYS = 1.15
"""How much faster compiled steps must be: each kind of network is compiled anew, which takes a while."""


@dataclass(frozen=True)
class Maps:
    """All maps, on the device.

    Attributes:
        data: The real maps, cleaned; the mixed maps follow them in `inputs`, those of the training lots first.
        inputs: In each drawing times 255, uint8 [real + mixed, drawings, channels, size, size].
        mixed: Which classes each mixed map shows, bool [mixed, classes].
        held_out: Which real maps run A holds out, bool [real].
        gold: Which of those neither run trains on, bool [real].
        mixed_held_out: Which mixed maps are made of maps that are held out, bool [mixed].
    """

    data: Dataset
    classes: list[str]
    targets: NDArray[np.intp]
    inputs: Tensor
    mixed: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    gold: NDArray[np.bool_]
    mixed_held_out: NDArray[np.bool_]

    def lesson(
        self,
        chosen: NDArray[np.bool_],
        *,
        evenness: float = Settings().evenness,
        patterns: bool = True,
        soft: NDArray[np.float32] | None = None,
    ) -> Lesson:
        """Return what a network learns from the chosen real maps [real], and from the mixed ones of the training lots.

        Args:
            chosen: Which real maps.
            evenness: How evenly the classes are drawn.
            patterns: Whether it learns patterns too.
            soft: Probabilities to learn in place of the labels alone, [real, classes].
        """
        labels = smooth_labels(self.targets, len(self.classes), Settings().smoothing) if soft is None else soft
        real = np.zeros(len(self.targets))
        real[chosen] = even_weights(self.targets[chosen], evenness)
        if not patterns:
            nothing = np.zeros((len(self.mixed), len(self.classes)), dtype=np.float32)
            return Lesson(np.concatenate([labels, nothing]), np.append(real, np.zeros(len(self.mixed))))
        learned = int((~self.mixed_held_out).sum())  # the mixed maps of the training lots come first
        weights = np.append(add_mixed_weights(real, learned), np.zeros(len(self.mixed) - learned))
        return Lesson(with_patterns(labels, self.targets, self.mixed), weights)


def _draw_part(part: tuple[list[NDArray[np.uint8]], int]) -> NDArray[np.uint8]:
    grids, seed = part
    return draw_many(grids, np.zeros(len(grids), dtype=bool), seed)[0]


def draw_on_all_processors(grids: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return all maps in each drawing times 255, uint8 [n, drawings, channels, size, size]."""
    workers = os.cpu_count() or 1
    step = -(-len(grids) // (workers * 4))
    parts = [(grids[begin : begin + step], begin) for begin in range(0, len(grids), step)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return np.concatenate(pool.map(_draw_part, parts))


def prepare(source: str, device: torch.device, most: int | None, mixed: int, file: Path | None) -> Maps:
    """Read, clean, split and draw the maps, on all processors."""
    cleaned, _ = clean(read(source))
    if most is not None:
        cleaned = cleaned.subset(np.sort(np.random.default_rng(0).permutation(len(cleaned))[:most]))
    classes = classes_of(cleaned)
    held_out = held_out_from_training(cleaned, 0)
    gold = gold_half(cleaned, held_out, 0)
    sides = [cleaned.subset(np.flatnonzero(held_out == side)) for side in (False, True)]
    mixes = [mix(sides[0], classes, mixed, 0), mix(sides[1], classes, mixed // 8, 1)]
    grids = [*cleaned.grids, *mixes[0].grids, *mixes[1].grids]
    if file is not None and file.exists():
        drawn = np.load(file)
        if len(drawn) != len(grids):
            raise SystemExit(f"{file}: expected {len(grids)} drawn maps, found {len(drawn)}: they are of another run")
    else:
        drawn = draw_on_all_processors(grids)
        if file is not None:
            np.save(file, drawn)
    inputs = torch.from_numpy(drawn).to(device)
    patterns = np.concatenate([one.patterns for one in mixes])
    mixed_held_out = np.repeat([False, True], [len(mixes[0].grids), len(mixes[1].grids)])
    return Maps(cleaned, classes, numbered(cleaned, classes), inputs, patterns, held_out, gold, mixed_held_out)


def figures(run: Run, maps: Maps) -> dict[str, Any]:
    """Measure a network of run A on the held-out maps: what is fitted on one half is measured on the other."""
    rows = np.flatnonzero(maps.held_out)
    index = torch.from_numpy(rows).to(maps.inputs.device)
    logits = [outputs(run.network, maps.inputs[index], drawing)["logits"] for drawing in range(len(DRAWINGS))]
    targets, gold = maps.targets[rows], maps.gold[rows]
    prior = log_prior(np.bincount(maps.targets[~maps.held_out], minlength=len(maps.classes)).astype(np.float64))
    crossed = [np.empty_like(one) for one in logits]
    fitted = {}
    for name, measured in (("gold", gold), ("valid", ~gold)):
        fit = ~measured
        step = np.float32(fit_prior(logits[0][fit], targets[fit], prior, maps.classes))
        temperature = fit_temperature(logits[0][fit] + step * prior, targets[fit])
        for one, out in zip(logits, crossed, strict=True):
            out[measured] = softmax(one[measured] + step * prior, temperature)
        fitted[name] = measure(crossed[0][measured], targets[measured], maps.classes)
    whole = measure(crossed[0], targets, maps.classes)
    found: dict[str, Any] = {
        key: round(whole[key], 4) for key in ("macro_f1", "worst_class_recall", "missed_as_none", "accuracy", "ece")
    }
    found |= {f"macro_f1_{name}": round(part["macro_f1"], 4) for name, part in fitted.items()}
    found["recall"] = {name: round(part["recall"], 3) for name, part in whole["per_class"].items()}
    found["drawings"] = {
        name: round(measure(one, targets, maps.classes)["macro_f1"], 4)
        for name, one in zip(DRAWINGS, crossed, strict=True)
    }
    if run.network.patterns is not None and maps.mixed_held_out.any():
        found |= pattern_figures(run, maps, rows)
    return found


def pattern_figures(run: Run, maps: Maps, rows: NDArray[np.intp]) -> dict[str, Any]:
    """Measure the layer of patterns at 0.5, on held-out maps of one pattern and on mixed ones."""
    mixed = np.flatnonzero(maps.mixed_held_out)
    single = np.eye(len(maps.classes), dtype=bool)[maps.targets[rows]]
    found: dict[str, Any] = {}
    for name, some, shown in (("single", rows, single), ("mixed", len(maps.data) + mixed, maps.mixed[mixed])):
        index = torch.from_numpy(some).to(maps.inputs.device)
        named = outputs(run.network, maps.inputs[index])["patterns"] > 0
        found[f"patterns, {name}"] = measure_patterns(named, shown, maps.classes)
    return found


class Results:
    """Figures and files of a stage."""

    def __init__(self, folder: Path, stage: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._stage, self._began = folder, stage, time.monotonic()
        self._rows: dict[str, Any] = {}

    def tell(self, sentence: str) -> None:
        """Print a sentence with the time since the start."""
        print(f"{time.monotonic() - self._began:6.1f} s  {sentence}", flush=True)

    def add(self, name: str, found: Any) -> None:
        """Write figures of a run."""
        self._rows[name] = found
        (self._folder / f"{self._stage}.json").write_text(json.dumps(self._rows, indent=1), encoding="utf-8")
        self.tell(f"{name}: {json.dumps(found)}")

    def save(self, name: str, arrays: dict[str, Any]) -> None:
        """Write arrays to a file."""
        np.savez_compressed(self._folder / f"{name}.npz", **arrays)


def measure_rate(maps: Maps, asked: argparse.Namespace, results: Results) -> None:
    """Measure the maps a second that one network and four at once are trained on, compiled and not."""
    for fuse in (False, True):
        for count in (1, 4):
            began = time.monotonic()
            recipe = Recipe(SHAPE, RATE_STEPS * asked.batch, asked.batch)
            runs = [
                start(f"{number}", recipe, maps.lesson(~maps.held_out), maps.inputs, len(maps.classes), fuse=fuse)
                for number in range(count)
            ]
            ready = time.monotonic() - began
            rate = go(runs, lambda _: None) * asked.batch
            results.add(
                f"{count} at once{', compiled' * fuse}", {"maps a second": round(rate), "ready in s": round(ready)}
            )


def known_rate(folder: Path) -> tuple[bool, float]:
    """Return whether compiling pays, and the maps a second of four at once, as the stage rate measured them."""
    file = folder / "rate.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    plain, compiled = (found.get(f"4 at once{how}", {}).get("maps a second", 0) for how in ("", ", compiled"))
    return compiled > COMPILING_PAYS * plain, max(plain, compiled) or 1e9


def affordable(asked: argparse.Namespace, maps_an_epoch: int, results: Results) -> float:
    """Return how many of the epochs asked for fit into the seconds that a group of runs may take."""
    epochs = min(asked.epochs, asked.seconds * asked.rate / maps_an_epoch)
    if epochs < asked.epochs:
        results.tell(f"{epochs:.1f} of {asked.epochs:g} epochs fit into {asked.seconds:g} s")
    return float(epochs)


def compare(maps: Maps, asked: argparse.Namespace, results: Results) -> None:
    """Train one network for each of several recipes, all at once, and measure them."""
    count = int((~maps.held_out).sum())
    epochs = affordable(asked, 7 * count, results)
    base = Recipe(SHAPE, int(epochs * count), asked.batch, seed=1)
    recipes: dict[str, tuple[Recipe, dict[str, Any]]] = {
        "base": (base, {}),
        "one class only": (replace(base, shape=replace(SHAPE, patterns=False)), {"patterns": False}),
        "evenness 0.25": (base, {"evenness": 0.25}),
        "wide": (replace(base, shape=replace(SHAPE, widths=(48, 96, 192, 384))), {}),
        "rate 6e-3": (replace(base, rate=6e-3), {}),
        "half the batch": (replace(base, batch=max(1, asked.batch // 2)), {}),
    }
    runs = []
    for name, (recipe, how) in recipes.items():
        lesson = maps.lesson(~maps.held_out, **how)
        runs.append(start(name, recipe, lesson, maps.inputs, len(maps.classes), fuse=asked.fuse))
        results.tell(f"{name}: {parameters(runs[-1].network) / 1e6:.2f} M parameters, {runs[-1].steps} steps")
    rate = go(runs, results.tell)
    results.add("maps a second", round(rate * asked.batch))
    for run in runs:
        results.add(run.name, figures(run, maps))


def train(maps: Maps, asked: argparse.Namespace, results: Results) -> None:
    """Train the teachers, then run A and run B on their answers and on the labels alone."""
    count, classes = int((~maps.held_out).sum()), len(maps.classes)
    base = Recipe(SHAPE, 0, asked.batch)
    wide = replace(SHAPE, widths=(48, 96, 192, 384)) if asked.wide else SHAPE
    teachers = []
    epochs = affordable(asked, asked.teachers * count, results)
    for seed in range(1, asked.teachers + 1):
        recipe = replace(base, shape=wide, maps=int(epochs * count), seed=seed)
        lesson = maps.lesson(~maps.held_out)
        teachers.append(start(f"teacher {seed}", recipe, lesson, maps.inputs, classes, fuse=asked.fuse))
    rate = go(teachers, results.tell)
    asked.rate = rate * asked.batch
    results.add("maps a second", round(rate * asked.batch))
    found = {run.name: figures(run, maps) for run in teachers}
    for name, row in found.items():
        results.add(name, row)
    real = maps.inputs[: len(maps.data)]
    logits = [outputs(run.network, real)["logits"] for run in teachers]
    results.save("teachers", {f"logits_{number}": one.astype(np.float16) for number, one in enumerate(logits)})
    probabilities = np.mean([softmax(one) for one in logits], axis=0)
    together = np.log(np.maximum(probabilities, 1e-9))
    results.add("teachers together", ensemble(together, maps))
    best = max(teachers, key=lambda run: found[run.name]["macro_f1_valid"])
    write_weights(asked.out / "teacher.npz", best.network)
    labels = smooth_labels(maps.targets, classes, Settings().smoothing)
    soft = distil(labels, probabilities)
    runs = []
    epochs = affordable(asked, 2 * count + 2 * int((~maps.gold).sum()), results)
    for name, chosen, wanted, seed in (
        ("A distilled", ~maps.held_out, soft, 11),
        ("A labels", ~maps.held_out, None, 12),
        ("B distilled", ~maps.gold, soft, 13),
        ("B labels", ~maps.gold, None, 14),
    ):
        recipe = replace(base, maps=int(epochs * chosen.sum()), seed=seed)
        lesson = maps.lesson(chosen, soft=wanted)
        runs.append(start(name, recipe, lesson, maps.inputs, classes, fuse=asked.fuse))
    go(runs, results.tell)
    for run in runs:
        results.add(run.name, figures(run, maps))
        write_weights(asked.out / f"{run.name.lower().replace(' ', '-')}.npz", run.network)


def alone(maps: Maps, asked: argparse.Namespace, results: Results) -> None:
    """Train the network of run A on the labels alone, as far as a processor gets in an hour or two."""
    chosen = ~maps.held_out
    recipe = Recipe(SHAPE, int(asked.epochs * chosen.sum()), asked.batch, asked.highest)
    run = start("a", recipe, maps.lesson(chosen), maps.inputs, len(maps.classes), fuse=asked.fuse)
    results.tell(f"{run.steps} steps")
    go([run], results.tell)
    write_weights(asked.out / "a.npz", run.network)
    results.add("a", figures(run, maps))


def further(maps: Maps, asked: argparse.Namespace, results: Results) -> None:
    """Train finished networks further: `a...` on the lots of run A, `b...` on those of run B, one after the other."""
    for file in asked.start:
        chosen = ~maps.held_out if file.name.startswith("a") else ~maps.gold
        count = int(chosen.sum())
        recipe = Recipe(SHAPE, int(asked.epochs * count), asked.batch, asked.highest, seed=51)
        lesson = maps.lesson(chosen)
        run = start(file.stem, recipe, lesson, maps.inputs, len(maps.classes), fuse=asked.fuse, begin=read_arrays(file))
        rate = go([run], results.tell)
        results.tell(f"{rate * asked.batch:.0f} maps a second")
        write_weights(asked.out / f"{file.stem}-further.npz", run.network)
        results.add(file.stem, figures(run, maps))


def ensemble(logits: NDArray[np.float32], maps: Maps) -> dict[str, float]:
    """Measure the mean of the teachers' probabilities on the held-out maps."""
    rows = np.flatnonzero(maps.held_out)
    found = measure(softmax(logits[rows]), maps.targets[rows], maps.classes)
    return {key: round(found[key], 4) for key in ("macro_f1", "worst_class_recall", "missed_as_none")}


def doubt(maps: Maps, asked: argparse.Namespace, results: Results) -> None:
    """Cross-fit all labels, and measure how maps of a class that a network never saw are told apart."""
    shape, classes = replace(SHAPE, patterns=False), len(maps.classes)
    base = Recipe(shape, 0, asked.batch)
    folds = grouped_folds(maps.data.labels, maps.data.groups, 5, 0)
    real = maps.inputs[: len(maps.data)]

    def runs_of(chosen: dict[str, NDArray[np.bool_]], seed: int) -> list[Run]:
        epochs = affordable(asked, sum(int(some.sum()) for some in chosen.values()), results)
        started = [
            start(
                name,
                replace(base, maps=int(epochs * some.sum()), seed=seed + number),
                maps.lesson(some, patterns=False),
                maps.inputs,
                classes,
                fuse=asked.fuse,
            )
            for number, (name, some) in enumerate(chosen.items())
        ]
        go(started, results.tell)
        return started

    crossed = np.empty((len(real), classes), dtype=np.float32)
    for fold, run in enumerate(runs_of({f"without fold {fold}": folds != fold for fold in range(5)}, 21)):
        logits = outputs(run.network, real)["logits"]
        crossed[folds == fold] = logits[folds == fold]
    digests = np.array([digest.hex() for digest in maps.data.digests()])
    results.save("crossed", {"logits": crossed, "digests": digests, "labels": maps.data.labels})
    probabilities = softmax(crossed)
    margin = probabilities.max(axis=1) - probabilities[np.arange(len(crossed)), maps.targets]
    doubtful = np.zeros(len(crossed), dtype=bool)
    doubtful[np.argsort(-margin)[: len(crossed) // 100]] = True
    learned = ~maps.held_out
    chosen = {
        "all maps, seed 1": learned,
        "without the doubtful, seed 1": learned & ~doubtful,
        "all maps, seed 2": learned,
        "without the doubtful, seed 2": learned & ~doubtful,
    }
    for run in runs_of(chosen, 31):
        results.add(run.name, figures(run, maps))
    hidden = {f"{name} hidden": learned & (maps.targets != number) for number, name in enumerate(maps.classes)}
    rows = np.flatnonzero(maps.held_out)
    for number, run in enumerate(runs_of(hidden, 41)):
        results.add(run.name, unlike_figures(run, maps, number, np.flatnonzero(hidden[run.name]), rows))


def unlike_figures(
    run: Run, maps: Maps, hidden: int, learned: NDArray[np.intp], rows: NDArray[np.intp]
) -> dict[str, Any]:
    """Measure how maps of a hidden class are told from those of classes that the network knows."""
    device = maps.inputs.device
    known = outputs(run.network, maps.inputs[torch.from_numpy(learned).to(device)])
    asked = outputs(run.network, maps.inputs[torch.from_numpy(rows).to(device)])
    unknown = maps.targets[rows] == hidden
    logits = np.delete(asked["logits"], hidden, axis=1)
    probabilities = softmax(logits)
    numbers = np.unique(maps.targets[learned], return_inverse=True)[1]
    scores = {
        "improbability": 1 - probabilities.max(axis=1),
        "Mahalanobis": Likeness.fit(known["embedding"], numbers).distances(asked["embedding"]),
    }
    return {
        name: {
            "auroc": round(area_under_curve(score[unknown], score[~unknown]), 3),
            "recall at 5 %": round(recall_at(score[unknown], score[~unknown], 0.05), 3),
        }
        for name, score in scores.items()
    }


def speed(maps: Maps, results: Results) -> None:
    """Measure float32 on the GPU at batches of 1, 32 and 256, by ONNX Runtime where it has CUDA, and by PyTorch."""
    import onnxruntime

    from fabwafer_training.network import Exported, WaferNet

    network = Exported(WaferNet(len(maps.classes), SHAPE)).to(maps.inputs.device).eval()
    found: dict[str, Any] = {"onnxruntime": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}
    with torch.inference_mode():
        for batch in (1, 32, 256):
            some = maps.inputs[:batch, 0].float() / 255
            times = []
            for _ in range(60):
                began = time.perf_counter()
                network(some)[0].cpu()
                times.append(time.perf_counter() - began)
            found[f"PyTorch, batch {batch}, ms"] = round(float(np.median(times[10:])) * 1000, 3)
    results.add("speed", found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one or several stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled real maps, in any form that fabwafer train reads")
    parser.add_argument("stage", nargs="+", help="rate, compare, train, doubt or speed; with epochs: train=80")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--teachers", type=int, default=5)
    parser.add_argument("--maps", type=int, help="take so many maps only, to try a plan")
    parser.add_argument("--mixed", type=int, default=20_000, help="maps of several patterns to make")
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="how long a group of runs may take: fewer epochs then"
    )
    parser.add_argument("--drawn", type=Path, help="where drawn maps are kept for the next stage")
    parser.add_argument("--start", type=Path, nargs="*", default=[], help="files of networks to train further")
    parser.add_argument("--highest", type=float, default=1e-3, help="the highest learning rate of further")
    parser.add_argument("--wide", action="store_true", help="teachers half as wide again")
    asked = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    began = time.monotonic()
    maps = prepare(asked.data, device, asked.maps, asked.mixed, asked.drawn)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the processor"
    print(
        f"{len(maps.data)} maps and {len(maps.mixed_held_out)} mixed ones ready on {name} in "
        f"{time.monotonic() - began:.0f} s",
        flush=True,
    )
    for stage in asked.stage:
        what, _, epochs = stage.partition("=")
        asked.epochs = float(epochs or 1)
        asked.fuse, asked.rate = known_rate(asked.out)
        results = Results(asked.out, what)
        if what == "speed":
            speed(maps, results)
        else:
            {
                "rate": measure_rate,
                "compare": compare,
                "train": train,
                "alone": alone,
                "further": further,
                "doubt": doubt,
            }[what](maps, asked, results)
        results.tell(f"{stage} done")


if __name__ == "__main__":
    main()
