"""The tensors of the V2 inference protocol: one table that model server, bridge and README share."""

from dataclasses import dataclass
from typing import Final, Literal

MODEL_NAME: Final = "wafer"

ReviewReason = Literal["", "unsure", "colours", "unlike", "not-a-wafer"]
"""Why a person should look at an image; empty where nobody need. `unlike`: the map is unlike those that the model was
trained on."""
WITHOUT_ALERT: Final[frozenset[ReviewReason]] = frozenset({"colours", "unlike"})
"""Reasons for which a prediction raises no alert: what it says may be about something that is not on the wafer."""

Size = Literal["n", "classes", "d", "h", "w"]
"""n: images of the request; classes: of the model; d: of the embedding; h, w: of the largest map of the request."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the model.

    Attributes:
        name: Its name in requests and answers.
        datatype: As V2 names it.
        shape: Its sizes, symbols standing for those that depend on the request or the model.
        holds: What it holds, for the README's table.
    """

    name: str
    datatype: Literal["BYTES", "FP32", "BOOL"]
    shape: tuple[Size | Literal[1], ...]
    holds: str

    def sizes(self, **known: int) -> list[int]:
        """Return the shape in numbers.

        Args:
            known: The value of each symbol.
        """
        return [size if isinstance(size, int) else known[size] for size in self.shape]


INPUT: Final = Tensor("image", "BYTES", ("n",), "the image files; base64 in JSON")
COLOURS: Final = Tensor(
    "colours", "BYTES", ("n",), "what is stated about each drawing's colours, as JSON; empty where nothing is"
)
"""An input that a request may leave out."""

OUTPUTS: Final = (
    Tensor("label", "BYTES", ("n",), "the class; empty where the image cannot be read"),
    Tensor("probability", "FP32", ("n",), "the probability of that class"),
    Tensor("probabilities", "FP32", ("n", "classes"), "the probability of each class, in the order of `classes`"),
    Tensor("defect", "BOOL", ("n",), "whether that class names a defect"),
    Tensor("wafer", "BOOL", ("n",), "whether the image shows a wafer map"),
    Tensor("review", "BOOL", ("n",), "whether a person should look at it"),
    Tensor("review_reason", "BYTES", ("n",), "why: `unsure`, `colours`, `unlike`, `not-a-wafer`; empty if not"),
    Tensor(
        "error",
        "BYTES",
        ("n",),
        "why the image cannot be read, is no wafer map, or has colours that leave a doubt; else empty",
    ),
    Tensor("embedding", "FP32", ("n", "d"), "the vector that similar maps are found by"),
    Tensor(
        "map", "BYTES", ("n",), "JSON: rows, columns, passed, failed, regions, largest; `null` where there is no map"
    ),
    Tensor("model_version", "BYTES", ("n",), "the version of the model, as its card says"),
    Tensor("model_digest", "BYTES", (1,), "the digest of the model's card"),
    Tensor("classes", "BYTES", ("classes",), "the names of the classes"),
)

HEATMAP: Final = Tensor(
    "heatmap",
    "FP32",
    ("n", "h", "w"),
    "with the parameter `heatmap`: the class activation over the dies, smaller maps padded with zeros below and to the "
    "right",
)
