"""Compares kinds of networks on the same maps and the same number of steps: quality, size, ms a map.

Run from the repository's root: `python -m benchmarks.training.architectures wm811k_dev.npz`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.training.maps import Maps, Results, arguments, figures, fit, probabilities, read_maps
from fabwafer.maps.scaling import CHANNELS
from fabwafer_training.augment import as_inputs
from fabwafer_training.epochs import even_weights
from fabwafer_training.network import (
    Block,
    Excitation,
    PooledNet,
    Shape,
    WaferNet,
    convolution,
    parameters,
    residual_stages,
)
from fabwafer_training.quantise import export, quantise
from fabwafer_training.train import Settings

CLASSES = 9
ENSEMBLE_SEEDS = (0, 1, 2, 3, 4)
ENSEMBLE = "five small residual nets"
SMALL = "small residual"
WIDTHS = (32, 64, 128, 256)
"""Of the shipped model."""


def resnet18() -> PooledNet:
    """ResNet-18 (He et al., CVPR 2016) with its own stem: a quarter of the side before the first stage."""
    stem = nn.Sequential(*convolution(CHANNELS, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    return started_as_identity(PooledNet(stem, residual_stages(64, Shape((64, 128, 256, 512), 2)), 512, CLASSES))


def vgg() -> PooledNet:
    """Return a VGG-style network (Simonyan and Zisserman, ICLR 2015), a quarter as wide."""
    layers: list[nn.Module] = []
    before = CHANNELS
    for width in (24, 48, 96, 192):
        for channels in (before, width):
            layers += [*convolution(channels, width, 3), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
        before = width
    return PooledNet(nn.Sequential(*layers[:3]), nn.Sequential(*layers[3:-1]), before, CLASSES)


class _Inverted(nn.Module):
    """An inverted bottleneck with squeeze and excitation, the block of EfficientNet (Tan and Le, ICML 2019)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.widen = nn.Sequential(*convolution(channels_in, inner, 1), nn.SiLU(inplace=True))
        self.spread = nn.Sequential(*convolution(inner, inner, 3, stride, groups=inner), nn.SiLU(inplace=True))
        self.excite = Excitation(inner, channels_in // 4, nn.SiLU)
        self.narrow = nn.Sequential(*convolution(inner, channels_out, 1))
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, maps: Tensor) -> Tensor:
        """Map [n, channels_in, h, w] to [n, channels_out, h / stride, w / stride]."""
        out: Tensor = self.narrow(self.excite(self.spread(self.widen(maps))))
        return out + maps if self.adds else out


def efficientnet() -> PooledNet:
    """Inverted bottlenecks in the manner of EfficientNet, about as many parameters as the small residual net."""
    stem = nn.Sequential(*convolution(CHANNELS, 24, 3, 2), nn.SiLU(inplace=True))
    blocks: list[nn.Module] = []
    before = 24
    for width, count, stride in ((24, 1, 1), (40, 2, 2), (80, 3, 2), (112, 2, 1)):
        for number in range(count):
            blocks.append(_Inverted(before, width, stride if number == 0 else 1))
            before = width
    return PooledNet(stem, nn.Sequential(*blocks), before, CLASSES)


def started_as_identity(network: PooledNet) -> PooledNet:
    """Start blocks as the identity, as is often done (Goyal et al., arXiv 1706.02677): what it costs in short runs."""
    for module in network.modules():
        if isinstance(module, Block):
            nn.init.zeros_(module.second_norm.weight)
    return network


NETWORKS: dict[str, Callable[[], PooledNet]] = {
    SMALL: lambda: started_as_identity(WaferNet(CLASSES, Shape())),
    "small residual, four stages": lambda: started_as_identity(WaferNet(CLASSES, Shape(WIDTHS))),
    "the same, blocks not started as the identity": lambda: WaferNet(CLASSES, Shape(WIDTHS)),
    "the same, with squeeze and excitation": lambda: WaferNet(CLASSES, Shape(WIDTHS, excitation=True)),
    "ResNet-18": resnet18,
    "VGG style": vgg,
    "EfficientNet style": efficientnet,
}


def milliseconds(path: Path, maps: NDArray[np.float32]) -> float:
    """Return the median time of one map on one thread, in ms."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    times = []
    for row in range(200):
        started = time.perf_counter()
        session.run(["logits"], {"maps": maps[row : row + 1]})
        times.append(time.perf_counter() - started)
    return float(np.median(times[20:]) * 1000)


def served(network: PooledNet, maps: Maps) -> dict[str, float]:
    """Return size and speed of a network's files: `int8_mb`, `int8_ms` and `float_ms` a map."""
    with TemporaryDirectory() as folder:
        float_path, int8_path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        export(network, float_path)
        quantise(float_path, int8_path, as_inputs(maps.inputs[:256, 0]))
        return {
            "int8_mb": int8_path.stat().st_size / 1e6,
            "int8_ms": milliseconds(int8_path, maps.held),
            "float_ms": milliseconds(float_path, maps.held),
        }


def main() -> None:
    """Run what is not finished, print the table and draw the plot."""
    asked = arguments(__doc__)
    maps = read_maps(asked.data, asked.maps)
    results = Results(asked.results / "architectures.jsonl")
    said = asked.results / "architectures"
    said.mkdir(exist_ok=True)
    jobs = [(name, 0) for name in NETWORKS] + [(SMALL, seed) for seed in ENSEMBLE_SEEDS[1:]]
    for name, seed in jobs:
        if results.has(network=name, seed=seed):
            continue
        settings = Settings(epochs=3, maps_per_epoch=asked.maps, seed=seed)
        torch.manual_seed(seed)
        network = NETWORKS[name]()
        seconds = fit(network, maps, settings, even_weights(maps.targets, settings.evenness))
        found = probabilities(network, maps)
        if name == SMALL:
            np.save(said / f"{seed}.npy", found)
        size = {"parameters": parameters(network), "seconds": seconds} | served(network, maps)
        results.add({"network": name, "seed": seed} | figures(found, maps) | size)
    if not results.has(network=ENSEMBLE):
        together = np.mean([np.load(said / f"{seed}.npy") for seed in ENSEMBLE_SEEDS], axis=0)
        size = {
            key: float(results.of(key, network=SMALL).sum())
            for key in ("parameters", "seconds", "int8_mb", "int8_ms", "float_ms")
        }
        results.add({"network": ENSEMBLE, "seed": 0} | figures(together, maps) | size)
    print(f"\n{len(maps.targets)} maps to train on, {len(maps.held_targets)} of other lots to measure on\n")
    print("| network | macro-F1 | worst recall | accuracy | parameters | int8 MB | int8 ms | float32 ms | s an epoch |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in (*NETWORKS, ENSEMBLE):
        row = next(row for row in results.rows if row["network"] == name)
        print(
            f"| {name} | {row['macro_f1']:.3f} | {row['worst_class_recall']:.3f} | {row['accuracy']:.3f} "
            f"| {row['parameters'] / 1e6:.2f} M | {row['int8_mb']:.2f} | {row['int8_ms']:.2f} | {row['float_ms']:.2f} "
            f"| {row['seconds']:.0f} |"
        )
    _draw(results).savefig(asked.pictures / "architectures.png", dpi=120)


def _draw(results: Results) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(name for name in (*NETWORKS, ENSEMBLE) if results.has(network=name)):
        row = next(row for row in results.rows if row["network"] == name)
        axes.scatter(row["int8_ms"], row["macro_f1"], s=20 + 60 * row["int8_mb"], color=f"C{number}", label=name)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms a map, int8, one thread (area: size of the file)")
    axes.set_ylabel("macro-F1 on maps of other lots")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, markerscale=0.6, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    main()
