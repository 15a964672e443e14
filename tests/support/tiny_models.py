"""A small model with a card, made in a moment: real files for the servers, right about nothing."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fabwafer.defects import SHIPPED_CLASSES
from fabwafer.maps.scaling import CHANNELS, INPUT_SIZE, SCALING_VERSION
from fabwafer.models.card import InputSpec, ModelCard, TrainingData, describe_file, write_card

EMBEDDING_SIZE = 8


def make(
    directory: Path,
    version: str = "tiny-1",
    seed: int = 0,
    *,
    names: Sequence[str] = SHIPPED_CLASSES,
    good: str | None = None,
    finite: bool = True,
) -> Path:
    """Write a model whose one convolution has seeded random weights; return its folder.

    Args:
        directory: The folder.
        version: Of the model.
        seed: Of the weights.
        names: Of its classes.
        good: The class of wafers without a defect, where none is called so.
        finite: Whether its answers are numbers.
    """
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    patch = random.normal(size=(EMBEDDING_SIZE, CHANNELS, 8, 8)).astype(np.float32)
    classes = random.normal(size=(len(names), EMBEDDING_SIZE, 1, 1)).astype(np.float32)
    if not finite:
        classes[0] = np.nan
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "patch"], ["patches"], strides=[8, 8], kernel_shape=[8, 8]),
            helper.make_node("Relu", ["patches"], ["features"]),
            helper.make_node("Conv", ["features", "classes"], ["activations"], kernel_shape=[1, 1]),
            helper.make_node("ReduceMean", ["features"], ["embedding"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["activations"], ["logits"], axes=[2, 3], keepdims=0),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", CHANNELS, INPUT_SIZE, INPUT_SIZE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(names)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", EMBEDDING_SIZE]),
            helper.make_tensor_value_info("activations", TensorProto.FLOAT, ["n", len(names), 8, 8]),
        ],
        [numpy_helper.from_array(patch, "patch"), numpy_helper.from_array(classes, "classes")],
    )
    file = directory / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    write_card(
        directory,
        ModelCard(
            name="tiny",
            version=version,
            created="2026-01-01T00:00:00Z",
            classes=list(names),
            good=good,
            input=InputSpec(size=INPUT_SIZE, channels=CHANNELS, scaling_version=SCALING_VERSION),
            embedding_size=EMBEDDING_SIZE,
            files={"int8": describe_file(file), "float32": describe_file(file)},
            temperature=1.0,
            thresholds=dict.fromkeys(names, 0.5),
            review_error_rate=0.01,
            training_data=TrainingData(name="none", sha256=hashlib.sha256().hexdigest(), counts={}),
        ),
    )
    return directory
