"""The entry of the retraining Job: `python -m fabwafer_training` is `fabwafer retrain`."""

import signal
import sys

from fabwafer_training.commands.retrain import app

if __name__ == "__main__":
    # The first process of a container ignores SIGTERM unless it handles it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()
