"""What the commands say of the sources of labelled maps that they read."""

from typing import Final

HELP: Final = (
    "A .npz, .pkl or .mat file, a folder of pictures as CLASS/*.png or train/CLASS/*.png, synthetic:N or "
    "synthetic:N:SEED, records or records:URL."
)
