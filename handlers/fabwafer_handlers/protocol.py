"""What clients and the model server exchange: requests to images, classifications to responses.

Pure functions over bodies and classifications, shared by both servers, so that their answers cannot differ. Requests
come in three forms and are told apart by their bodies alone, since TorchServe does not tell its handler the path:

- V2 (the Open Inference Protocol): a JSON object with `inputs`;
- V1: a JSON object with `instances`;
- raw: anything that is not JSON is one image file as it is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import uuid4

import numpy as np

from fabwafer.errors import FabwaferError
from fabwafer.maps.image_file import BadImageError
from fabwafer.maps.stated_colours import StatedColours, StatedColoursError
from fabwafer.messages.encoding import EncodingError, decoded_base64
from fabwafer.messages.inference import COLOURS, HEATMAP, INPUT, MODEL_NAME, OUTPUTS, Tensor

if TYPE_CHECKING:
    from fabwafer.models.card import ModelCard
    from fabwafer.models.classifier import Classification

MAX_IMAGES: Final = 256
"""Images of one request. A request of 8 MiB (`max_request_size`) could hold a hundred thousand tiny ones, and its
neighbours in the batch would wait for all of them."""

MAX_HEATMAP_CELLS: Final = 1_000_000
"""Dies of all heatmaps of one request, padding included: about 10 MB of JSON. 256 maps of 60 x 60 dies fit."""

OUTPUT_NAMES: Final = tuple(tensor.name for tensor in OUTPUTS)
"""What a V2 request can ask for by name; it gets all of them where it names none, and `heatmap` by the parameter."""

_KINDS: Final[dict[type, str]] = {
    type(None): "nothing",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
_JSON_STARTS: Final = (b"{", b"[", b'"')


class BadRequestError(FabwaferError):
    """A request that is not understood as a whole; the message says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a request: its bytes, or why it has none (the neighbours are classified all the same).

    `colours` is what is stated about its drawing.
    """

    image: bytes
    error: str = ""
    colours: StatedColours | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was understood.

    Attributes:
        form: Which of the three forms it came in; the response has the same.
        rows: Its images, at least one.
        heatmap: Whether the class activation maps are wanted.
        id: The id of a V2 request, made up where it has none.
        outputs: The V2 outputs that were asked for.
    """

    form: Literal["v1", "v2", "raw"]
    rows: list[Row]
    heatmap: bool = False
    id: str = ""
    outputs: Sequence[str] = OUTPUT_NAMES


def describe(card: "ModelCard") -> dict[str, Any]:
    """Return V2's model metadata, with the model's digest and classes."""
    sizes = {"n": -1, **_model_sizes(card)}
    return {
        "name": MODEL_NAME,
        "versions": [card.version],
        "platform": "onnxruntime",
        "inputs": [_description(INPUT, sizes), _description(COLOURS, sizes)],
        "outputs": [_description(tensor, sizes) for tensor in OUTPUTS],
        "digest": card.digest,
        "classes": card.classes,
    }


def _description(tensor: Tensor, sizes: Mapping[str, int]) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.sizes(**sizes)}


def _model_sizes(card: "ModelCard") -> dict[str, int]:
    return {"classes": len(card.classes), "d": card.embedding_size}


def parse_raw(image: bytes, *, heatmap: bool = False) -> Request:
    """Return the request that one image file makes."""
    return Request("raw", [Row(image)], heatmap=heatmap)


def is_json(body: bytes | bytearray) -> bool:
    """Return whether a body is meant as JSON; a PNG or JPEG file starts with a byte that no JSON text starts with."""
    return bytes(body[:64]).lstrip().startswith(_JSON_STARTS)


def parse(body: object, *, explain: bool = False) -> Request:
    """Read a decoded JSON body of either version.

    Args:
        body: What the JSON text holds.
        explain: Whether it came to the V1 verb `:explain`.

    Raises:
        BadRequestError: It is neither a V1 nor a V2 request.
    """
    if isinstance(body, Mapping):
        if "inputs" in body:
            return parse_v2(body)
        if "instances" in body:
            return parse_v1(body, explain=explain)
        came = "an object with " + (", ".join(sorted(map(str, body))[:10]) or "nothing in it")
    else:
        came = _kind(body)
    raise BadRequestError(
        'expected {"inputs": [...]} (V2), {"instances": [...]} (V1) or the bytes of a PNG or JPEG image, got ' + came
    )


def parse_v1(body: Mapping[str, Any], *, explain: bool = False) -> Request:
    """Read a V1 request: `{"instances": [{"bytes": {"b64": ...}}, ...]}`, or the same with `{"b64": ...}`.

    Beside `bytes` (or `b64`) an instance may have `colours`.

    Raises:
        BadRequestError: `instances` is not a list of 1 to `MAX_IMAGES`.
    """
    instances = body["instances"]
    if not isinstance(instances, list):
        raise BadRequestError(f"instances: expected a list, got {_kind(instances)}")
    _check_count("instances", len(instances))
    return Request("v1", [_v1_row(instance) for instance in instances], heatmap=explain)


def _v1_row(instance: object) -> Row:
    inner = instance["bytes"] if isinstance(instance, Mapping) and "bytes" in instance else instance
    if not isinstance(inner, Mapping) or "b64" not in inner:
        return Row(b"", f'expected an instance {{"bytes": {{"b64": ...}}}}, got {_kind(instance)}')
    row = decode_base64(inner["b64"])
    return _with_colours(row, instance.get("colours")) if isinstance(instance, Mapping) else row


def _with_colours(row: Row, statement: object) -> Row:
    """Add what is stated about a drawing's colours; what cannot be read becomes the row's error."""
    if statement is None or statement in ("", b""):
        return row
    try:
        return replace(row, colours=StatedColours.read(statement))
    except StatedColoursError as error:
        return Row(b"", row.error or str(error))


def parse_v2(body: Mapping[str, Any]) -> Request:
    """Read a V2 request: an input `image` of type BYTES and shape [n], its data base64 of image files.

    A second input `colours` of the same type and shape may state what the colours of each drawing mean.

    Raises:
        BadRequestError: Another input, a shape that is not the data's, or a parameter or output that does not exist.
    """
    inputs = body["inputs"]
    if not isinstance(inputs, list) or len(inputs) not in (1, 2) or not all(isinstance(i, Mapping) for i in inputs):
        came = f"{len(inputs)} inputs" if isinstance(inputs, list) else _kind(inputs)
        raise BadRequestError(f"inputs: expected a list with the input image, and perhaps colours, got {came}")
    colours: Sequence[object] = ()
    if len(inputs) == 2:
        inputs = sorted(inputs, key=lambda one: one.get("name") == COLOURS.name)
        colours = _v2_data(inputs[1], COLOURS)
    data = _v2_data(inputs[0], INPUT)
    if colours and len(colours) != len(data):
        raise BadRequestError(f"colours: expected {len(data)}, as many as there are images, got {len(colours)}")
    request_id = body.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequestError(f"id: expected a text, got {_kind(request_id)}")
    return Request(
        "v2",
        [
            _with_colours(Row(item) if isinstance(item, bytes) else decode_base64(item), statement)
            for item, statement in zip(data, colours or [None] * len(data), strict=True)
        ],
        heatmap=_heatmap_parameter(body.get("parameters")),
        id=request_id or uuid4().hex,
        outputs=_outputs(body.get("outputs")),
    )


def _v2_data(given: Mapping[str, Any], tensor: Tensor) -> list[object]:
    if given.get("name") != tensor.name or given.get("datatype") != tensor.datatype:
        raise BadRequestError(
            f"inputs: expected the name {tensor.name} and the datatype {tensor.datatype}, "
            f"got {_shown(given.get('name'))} and {_shown(given.get('datatype'))}"
        )
    data = given.get("data")
    if not isinstance(data, list):
        raise BadRequestError(f"data: expected a list of texts, got {_kind(data)}")
    _check_count("data", len(data))
    if given.get("shape") != [len(data)]:
        raise BadRequestError(
            f"shape: expected [{len(data)}], as many as there are data, got {_shown(given.get('shape'))}"
        )
    return data


def _heatmap_parameter(parameters: object) -> bool:
    if parameters is None:
        return False
    if not isinstance(parameters, Mapping):
        raise BadRequestError(f"parameters: expected an object, got {_kind(parameters)}")
    heatmap = parameters.get("heatmap", False)
    if not isinstance(heatmap, bool):
        raise BadRequestError(f"parameters: expected heatmap to be true or false, got {_shown(heatmap)}")
    return heatmap


def _outputs(asked: object) -> Sequence[str]:
    if not asked:
        return OUTPUT_NAMES
    if not isinstance(asked, list) or not all(isinstance(output, Mapping) for output in asked):
        raise BadRequestError('outputs: expected a list of {"name": ...}')
    names = [output.get("name") for output in asked]
    unknown = [name for name in names if name not in OUTPUT_NAMES]
    if unknown:
        raise BadRequestError(f"outputs: expected names among {', '.join(OUTPUT_NAMES)}, got {_shown(unknown[0])}")
    return [name for name in OUTPUT_NAMES if name in names]


def decode_base64(text: object) -> Row:
    """Decode one image of a JSON body; what cannot be decoded becomes the row's error."""
    if not isinstance(text, str):
        return Row(b"", f"expected base64 of an image file, got {_kind(text)}")
    try:
        return Row(decoded_base64(text))
    except (EncodingError, BadImageError) as error:
        return Row(b"", str(error))


def _check_count(what: str, count: int) -> None:
    if not 1 <= count <= MAX_IMAGES:
        raise BadRequestError(f"{what}: expected 1 to {MAX_IMAGES} images, got {count}")


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def with_row_errors(request: Request, answers: Sequence["Classification"]) -> list["Classification"]:
    """Return the answers, with the reason of each row that had no image to classify."""
    return [
        replace(answer, error=row.error) if row.error else answer
        for row, answer in zip(request.rows, answers, strict=True)
    ]


def respond(request: Request, answers: Sequence["Classification"], card: "ModelCard") -> dict[str, Any]:
    """Return the body of the response. Its numbers are NumPy arrays where there are many of them.

    Args:
        request: What is answered.
        answers: One classification for each of its rows, in their order.
        card: The card of the model that made them.

    Raises:
        BadRequestError: The heatmaps that were asked for are too large together; or the one image of a raw request
            could not be read (there is no neighbour that the answer must spare).
    """
    answers = with_row_errors(request, answers)
    if request.heatmap:
        _check_heatmaps(answers)
    if request.form == "v2":
        return _v2(request, answers, card)
    predictions = [_prediction(answer, card, heatmap=request.heatmap) for answer in answers]
    if request.form == "v1":
        return {"predictions": predictions}
    if not answers[0].label:
        raise BadRequestError(answers[0].error)
    return predictions[0]


def _check_heatmaps(answers: Sequence["Classification"]) -> None:
    rows, columns = _largest_grid(answers)
    if len(answers) * rows * columns > MAX_HEATMAP_CELLS:
        raise BadRequestError(
            f"expected heatmaps of at most {MAX_HEATMAP_CELLS} dies in one request, got {len(answers)} of up to "
            f"{rows} x {columns}: ask for fewer at a time"
        )


def _largest_grid(answers: Sequence["Classification"]) -> tuple[int, int]:
    counted = [answer.map for answer in answers if answer.map is not None]
    return max((c.rows for c in counted), default=0), max((c.columns for c in counted), default=0)


def _prediction(answer: "Classification", card: "ModelCard", *, heatmap: bool) -> dict[str, Any]:
    """Return one V1 prediction: named as in V2, but with probabilities by class and the heatmap in its true size."""
    prediction = {
        "label": answer.label,
        "probability": np.float32(answer.probability),
        "probabilities": dict(zip(card.classes, answer.probabilities, strict=True)),
        "defect": answer.defect,
        "wafer": answer.wafer,
        "review": answer.review,
        "review_reason": answer.review_reason,
        "error": answer.error,
        "embedding": np.ascontiguousarray(answer.embedding),
        "map": answer.map.model_dump() if answer.map else None,
        "model_version": card.version,
    }
    if heatmap:
        prediction["heatmap"] = None if answer.heatmap is None else np.ascontiguousarray(answer.heatmap)
    return prediction


def _v2(request: Request, answers: Sequence["Classification"], card: "ModelCard") -> dict[str, Any]:
    n = len(answers)
    sizes = {"n": n, **_model_sizes(card)}
    data: dict[str, Any] = {
        "label": [answer.label for answer in answers],
        "probability": np.array([answer.probability for answer in answers], np.float32),
        "probabilities": _flat([answer.probabilities for answer in answers]),
        "defect": [answer.defect for answer in answers],
        "wafer": [answer.wafer for answer in answers],
        "review": [answer.review for answer in answers],
        "review_reason": [answer.review_reason for answer in answers],
        "error": [answer.error for answer in answers],
        "embedding": _flat([answer.embedding for answer in answers]),
        "map": [json.dumps(answer.map.model_dump() if answer.map else None) for answer in answers],
        "model_version": [card.version] * n,
        "model_digest": [card.digest],
        "classes": list(card.classes),
    }
    outputs = [
        _description(tensor, sizes) | {"data": data[tensor.name]}
        for tensor in OUTPUTS
        if tensor.name in request.outputs
    ]
    if request.heatmap:
        heatmaps = _heatmaps(answers)
        _, h, w = heatmaps.shape
        outputs.append(_description(HEATMAP, {"n": n, "h": h, "w": w}) | {"data": heatmaps.ravel()})
    return {"id": request.id, "model_name": MODEL_NAME, "model_version": card.version, "outputs": outputs}


def _flat(arrays: Sequence[np.ndarray[Any, np.dtype[np.float32]]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.concatenate([array.ravel() for array in arrays]).astype(np.float32, copy=False)


def _heatmaps(answers: Sequence["Classification"]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the heatmaps as one tensor: padded below and to the right with zeros to the largest grid among them.

    The true size of each is in `map`; a row without a map is all zero.
    """
    rows, columns = _largest_grid(answers)
    padded = np.zeros((len(answers), rows, columns), np.float32)
    for i, answer in enumerate(answers):
        if answer.heatmap is not None:
            height, width = answer.heatmap.shape
            padded[i, :height, :width] = answer.heatmap
    return padded
