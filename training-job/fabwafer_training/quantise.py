"""From a trained network to the files that serve: ONNX in float32, and int8 by static quantisation."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from fabwafer.maps.scaling import CHANNELS, INPUT_SIZE
from fabwafer.models.classifier import OUTPUTS, PATTERNS
from fabwafer_training.network import Exported, PooledNet

FLOAT_NAME = "model.onnx"
INT8_NAME = "model-int8.onnx"
_STEP = 64


class _Maps(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration maps to ONNX Runtime in steps."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._parts = iter([inputs[start : start + _STEP] for start in range(0, len(inputs), _STEP)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        part = next(self._parts, None)
        return None if part is None else {"maps": part}


def export(network: PooledNet, path: Path) -> None:
    """Write the network as float32 ONNX with a dynamic batch and the outputs of `fabwafer.models.classifier`."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision, not used here, is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
        program = torch.onnx.export(
            Exported(network).eval(),
            (torch.zeros(2, CHANNELS, INPUT_SIZE, INPUT_SIZE),),
            input_names=["maps"],
            output_names=[*OUTPUTS, *([PATTERNS] if network.patterns is not None else [])],
            dynamic_shapes={"maps": {0: torch.export.Dim("batch", min=1, max=4096)}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - returned whenever dynamo is asked for
    model = program.model_proto
    _strip_paths(model)
    onnx.save(model, path)


def _strip_paths(model: onnx.ModelProto) -> None:
    """Remove the exporter's metadata: it holds source paths of the machine that trained."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def quantise(float_path: Path, int8_path: Path, calibration: NDArray[np.float32]) -> None:
    """Write the int8 model: weights per channel, activations by ranges seen on real maps.

    The head stays in float32: it is a thousandth of the work, and rounding it would break the tie between logits
    and activation maps.

    Args:
        float_path: The model that `export` wrote.
        int8_path: Where to write.
        calibration: Scaled maps, float32 [n, channels, size, size]; a few hundred of all classes.
    """
    prepared = int8_path.with_suffix(".prepared")
    quant_pre_process(float_path, prepared, skip_symbolic_shape=True)
    graph = onnx.load(prepared).graph
    by_output = {output: node for node in graph.node for output in node.output}
    head = [by_output[name].name for name in ("logits", "activations") if name in by_output]
    quantize_static(
        prepared,
        int8_path,
        _Maps(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        # Weights of 7 bits: with 8, the 16-bit sums of processors without VNNI (all before AVX-512, and many since)
        # saturate, and the same file names other classes there than where it was measured.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=["Conv", "Add", "Relu", "Resize", "Mul", "GlobalAveragePool", "AveragePool"],
        nodes_to_exclude=head,
    )
    prepared.unlink()


def add_to_logits(path: Path, prior: NDArray[np.float32]) -> None:
    """Add to the bias of a model file's last layer, in place.

    Args:
        path: A file that `export` or `quantise` wrote: the last layer is float32 in both.
        prior: What to add to each class's logit, [classes].
    """
    model = onnx.load(path)
    head = next(node for node in model.graph.node if "logits" in node.output)
    bias = next(value for value in model.graph.initializer if value.name == head.input[-1])
    changed = onnx.numpy_helper.to_array(bias) + prior
    bias.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), bias.name))
    onnx.save(model, path)


def run(path: Path, inputs: NDArray[np.float32], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Run a model file over scaled maps [n, channels, size, size]; return the outputs of these names over all n."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    parts: list[Sequence[NDArray[np.float32]]] = [
        session.run(list(names), {"maps": inputs[start : start + _STEP]}) for start in range(0, len(inputs), _STEP)
    ]
    return {name: np.concatenate([part[number] for part in parts]) for number, name in enumerate(names)}
