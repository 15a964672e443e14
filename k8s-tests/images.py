"""The images that the tests run."""

import os

TRAINING = os.environ.get("FABWAFER_TRAINING_IMAGE", "localhost/fabwafer-training-job:test")
HANDLERS = os.environ.get("FABWAFER_HANDLERS_IMAGE", "localhost/fabwafer-handlers:test")
KSERVE_MODEL = os.environ.get("FABWAFER_KSERVE_MODEL_IMAGE", "localhost/fabwafer-kserve-model:test")
BRIDGE = os.environ.get("FABWAFER_BRIDGE_IMAGE", "localhost/fabwafer-bridge:test")
ALL = (TRAINING, HANDLERS, KSERVE_MODEL, BRIDGE)
