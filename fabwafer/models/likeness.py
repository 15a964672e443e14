"""How unlike all classes of training a map is: the Mahalanobis distance of its embedding to the nearest class.

After Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS 2018.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

LIKENESS_NAME: Final = "likeness.npz"
"""The file's name in a model's folder."""

_SHRINKAGE: Final = 1e-3
"""Added to each variance, as a share of their mean: a direction in which no map varies must not decide."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What the embeddings of the training maps look like.

    Attributes:
        whitening: Brings embeddings to coordinates in which the maps of a class vary alike in all directions, [d, d].
        centres: The mean of each class in those coordinates, [classes, d].
    """

    whitening: NDArray[np.float32]
    centres: NDArray[np.float32]

    @classmethod
    def fit(cls, embeddings: NDArray[np.float32], targets: NDArray[np.intp]) -> "Likeness":
        """Fit to embeddings of training maps [n, d] and their class numbers [n]; every class needs a map."""
        vectors = embeddings.astype(np.float64)
        means = np.stack([vectors[targets == number].mean(axis=0) for number in range(int(targets.max()) + 1)])
        within = vectors - means[targets]
        values, directions = np.linalg.eigh(within.T @ within / len(within))
        whitening = directions / np.sqrt(values + _SHRINKAGE * values.mean())
        return cls(whitening.astype(np.float32), (means @ whitening).astype(np.float32))

    @classmethod
    def read(cls, content: bytes) -> "Likeness":
        """Read what `write` wrote.

        Raises:
            ValueError: It is no such file.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if set(arrays.files) != {"whitening", "centres"}:
                raise ValueError(f"expected the arrays whitening and centres, found {', '.join(arrays.files)}")
            return cls(arrays["whitening"], arrays["centres"])

    def write(self, path: Path) -> None:
        """Write it to a file: NumPy arrays, nothing pickled."""
        np.savez(path, whitening=self.whitening, centres=self.centres)

    def distances(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the squared distance of each embedding [n, d] to the nearest class, [n]."""
        points = embeddings @ self.whitening
        squared: NDArray[np.float32] = ((points[:, None, :] - self.centres[None]) ** 2).sum(axis=2).min(axis=1)
        return squared
