"""The model that comes with this release: where its folder is."""

import os
from pathlib import Path

import fabwafer


def shipped_store() -> Path:
    """Return the folder `model-store` that is shipped: in the package where it is installed, else in the checkout."""
    package = Path(fabwafer.__file__).parent
    installed = package / "model_store"
    return installed if installed.is_dir() else package.parent / "model-store"


def default_model() -> Path:
    """Return the folder of the model to use when none is named: `$FABWAFER_MODEL`, else the one that is shipped."""
    named = os.environ.get("FABWAFER_MODEL")
    return Path(named) if named else shipped_store() / "wafer"
