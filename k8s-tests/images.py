"""The images that the tests run."""

import os

TRAINING = os.environ.get("FABWAFER_TRAINING_IMAGE", "localhost/fabwafer-training-job:test")
HANDLERS = os.environ.get("FABWAFER_HANDLERS_IMAGE", "localhost/fabwafer-handlers:test")
KSERVE_MODEL = os.environ.get("FABWAFER_KSERVE_MODEL_IMAGE", "localhost/fabwafer-kserve-model:test")
BRIDGE = os.environ.get("FABWAFER_BRIDGE_IMAGE", "localhost/fabwafer-bridge:test")
NATS = os.environ.get("FABWAFER_NATS_IMAGE", "localhost/fabwafer-nats:test")
POSTGRESQL = os.environ.get("FABWAFER_POSTGRESQL_IMAGE", "localhost/fabwafer-postgresql:test")

_BY_VALUE = {
    "bridge": BRIDGE,
    "handlers": HANDLERS,
    "kserveModel": KSERVE_MODEL,
    "trainingJob": TRAINING,
    "nats": NATS,
    "postgresql": POSTGRESQL,
}
ALL = tuple(_BY_VALUE.values())


def chart_values() -> list[str]:
    """Return the options of helm that name these images."""
    options = []
    for name, image in _BY_VALUE.items():
        registry, _, path = image.partition("/")
        repository, _, tag = path.rpartition(":")
        for key, value in (("registry", registry), ("repository", repository), ("tag", tag)):
            options += ["--set-string", f"images.{name}.{key}={value}"]
    return options
