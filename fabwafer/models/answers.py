"""Whether a model answers at all, asked before it is published or promoted."""

from importlib.util import find_spec
from pathlib import Path

from fabwafer.models.card import read_card


def check_answers(model: Path) -> None:
    """Check that each file of a model has finite answers for the smoke set.

    Where ONNX Runtime is not installed nothing can be asked: there the model server checks, when it loads the model.

    Args:
        model: The model's folder.

    Raises:
        ModelRefusedError: A file has none, or cannot be loaded.
    """
    if find_spec("onnxruntime") is None:
        return
    from fabwafer.models.classifier import Classifier

    for variant in read_card(model).files:
        Classifier(model, variant)
