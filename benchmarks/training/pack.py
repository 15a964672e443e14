"""Writes the model's folder of a network that `benchmarks.training.on_gpu` trained: quantised, calibrated, measured.

`python -m benchmarks.training.pack wm811k_dev.npz build/gpu/a-labels.npz --out build/a --version 1 --card CARD.json`
packs a network of run A; with `--fitted build/a` one of run B, which is measured on the gold half alone and takes over
what was fitted for that of run A.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.training.on_gpu import SHAPE
from fabwafer.models.card import read_card
from fabwafer_training.augment import draw_many
from fabwafer_training.job import MIXED_TO_MEASURE_ON, prepare
from fabwafer_training.network import WaferNet
from fabwafer_training.package import Fitted, HeldOut, package
from fabwafer_training.readers import read
from fabwafer_training.splits import gold_half
from fabwafer_training.weights import read_arrays


def main() -> None:
    """Pack one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the maps that it was trained on")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--card", type=Path, help="JSON: description, limits, notice and citations")
    parser.add_argument("--training", default="{}", help="JSON: how it was trained, for the card")
    parser.add_argument("--fitted", type=Path, help="the folder of the network of run A")
    asked = parser.parse_args()

    material = prepare(read(asked.data), 0, print)
    data, held_out = material.data, material.held_out
    aside = held_out if asked.fitted is None else gold_half(data, held_out, 0)
    network = WaferNet(len(material.classes), SHAPE).eval()
    network.load_state_dict(read_arrays(asked.weights))
    learned, measured_on = (data.subset(np.flatnonzero(aside == side)) for side in (False, True))
    inputs, held_out_inputs = draw_many(data.grids, aside, 0)
    card = package(
        network,
        classes=material.classes,
        trained_on=learned,
        trained_inputs=inputs,
        held_out=HeldOut.of(measured_on, held_out_inputs, material.classes, mixed=MIXED_TO_MEASURE_ON, seed=1),
        folder=asked.out,
        about={"name": "wafer", "version": asked.version}
        | (json.loads(asked.card.read_text(encoding="utf-8")) if asked.card else {}),
        training={"shape": asdict(SHAPE), "held_out_seed": 0} | json.loads(asked.training),
        fitted=_fitted(asked.fitted) if asked.fitted else None,
    )
    print(json.dumps(card.metrics, indent=1))


def _fitted(folder: Path) -> Fitted:
    """Return what was fitted for a packed model."""
    card = read_card(folder)
    if card.unlike_distance is None:
        raise SystemExit(f"{folder}: expected a model with an unlike_distance")
    return Fitted(
        float(card.training["prior_step"]), card.temperature, card.thresholds, card.patterns, card.unlike_distance
    )


if __name__ == "__main__":
    main()
