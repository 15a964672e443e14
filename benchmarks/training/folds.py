"""Trains on three grouped folds with three seeds, and measures each as served on the fifth of the lots it never saw.

Run from the repository's root: `python -m benchmarks.training.folds wm811k_dev.npz`. A fold that was stopped goes on
from its last round; several may run at once (`--folds 0`, `--folds 1`), or one over several processes by torchrun.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.training.architectures import WIDTHS
from benchmarks.training.maps import Results, spread
from fabwafer_training import processes
from fabwafer_training.job import Material, classes_of, train_model
from fabwafer_training.network import Shape
from fabwafer_training.readers import read
from fabwafer_training.splits import HELD_OUT_FOLDS, clean, grouped_folds
from fabwafer_training.train import Epoch, Settings

FIGURES = ("macro_f1", "worst_class_recall", "mean_class_recall", "accuracy", "top3_accuracy", "missed_as_none", "ece")


def main() -> None:
    """Train on the folds that are not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled real maps, in any form that fabwafer train reads")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2], choices=range(HELD_OUT_FOLDS))
    parser.add_argument("--epochs", type=int, default=17, help="as many as the shipped model had")
    parser.add_argument("--maps-per-epoch", type=int, default=24_000, help="maps drawn in a round")
    parser.add_argument("--results", type=Path, default=Path("build"), help="where finished runs are noted")
    asked = parser.parse_args()
    data, _ = clean(read(asked.data))
    fold_of = grouped_folds(data.labels, data.groups, HELD_OUT_FOLDS, seed=0)
    results = Results(asked.results / "folds.jsonl")
    settings = Settings(Shape(WIDTHS), asked.epochs, asked.maps_per_epoch, threads=processes.threads())
    run = {"epochs": asked.epochs, "maps_per_epoch": asked.maps_per_epoch}
    for fold in asked.folds:
        if results.has(fold=fold, **run):
            continue
        card = train_model(
            Material(data, classes_of(data), fold_of == fold, held_out_seed=0),
            asked.results / f"fold-{fold}",
            replace(settings, seed=fold),
            {"name": "wafer", "version": f"fold-{fold}"},
            tell=print,
            report=_show,
        )
        if card is not None:
            classes = {
                f"{figure}_{name}": found[figure]
                for name, found in card.metrics["per_class"].items()
                for figure in ("precision", "recall")
            }
            float32 = {"float32_macro_f1": card.metrics["float32"]["macro_f1"]}
            results.add(run | {"fold": fold} | {key: card.metrics[key] for key in FIGURES} | classes | float32)
    if not processes.is_first():
        return
    print(f"\n{len(results.of('fold', **run))} folds\n\n| figure | mean and half the range |\n|---|---|")
    for key in (key for key in results.rows[-1] if key not in {"fold", *run}):
        print(f"| {key} | {spread(results.of(key, **run))} |")


def _show(done: Epoch) -> None:
    print(f"epoch {done.number} of {done.of}: loss {done.loss:.4f}, {done.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
