"""The model server, asked by the V2 inference protocol."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from fabwafer.errors import FabwaferError
from fabwafer.maps.counts import MapCounts
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.messages import inference
from fabwafer.messages.inference import COLOURS, MODEL_NAME, Tensor
from fabwafer.models.key_file import authorization
from fabwafer.models.model_server import ServerUnavailableError

TIMEOUT: Final = 10.0
"""Seconds for one call; shorter than a message's ack_wait, so that nothing is delivered twice while it is asked."""

# The smallest grey PNG: an image that a healthy server answers, with `not-a-wafer`.
PROBE: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63600000000200014898e3760000000049454e44ae426082"
)
_HEAD: Final = json.dumps({"name": inference.INPUT.name, "datatype": inference.INPUT.datatype})[:-1].encode()
_COLOURS_HEAD: Final = json.dumps({"name": COLOURS.name, "datatype": COLOURS.datatype})[:-1].encode()


class ModelServerError(FabwaferError):
    """A call without answers: the server is down, busy, or failed on the request."""


class AnswerError(ModelServerError):
    """An answer that is not what the protocol says."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The model server's answer for one image; without a label, `error` says why the image cannot be read.

    `review_reason` is None where an older model server gives none.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    defect: bool | None
    wafer: bool
    review: bool | None
    review_reason: str | None
    error: str
    embedding: list[float]
    map: MapCounts | None
    model: str
    digest: str


class ModelServer:
    """A client of one model behind one address.

    Args:
        session: The HTTP session; its connector bounds the connections.
        infer: Where it takes V2 requests, see `infer_url`.
        key_file: TorchServe's key file; None where it asks for no token.
    """

    def __init__(self, session: aiohttp.ClientSession, infer: str, key_file: Path | None = None) -> None:
        self._session = session
        self._infer = infer
        self._key_file = key_file

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """Open the HTTP session that calls are made in."""
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            connector=aiohttp.TCPConnector(limit=16, keepalive_timeout=30),
        )

    async def classify(self, images: Sequence[bytes], colours: Sequence[StatedColours | None] = ()) -> list[Answer]:
        """Ask for the class of each image.

        Args:
            images: Image files, n of them, checked already.
            colours: What is stated about the colours of each, n of them; or nothing.

        Returns:
            n answers in the same order; one without a label is about its own image alone.

        Raises:
            ModelServerError: There were no answers; none of the images can be blamed for it.
        """
        data = b",".join(b'"' + base64.b64encode(image) + b'"' for image in images)
        stated = b""
        if any(colours):  # servers before 0.2 know no second input
            texts = json.dumps([one.to_json() if one else "" for one in colours]).encode()
            stated = b',%b,"shape":[%d],"data":%b}' % (_COLOURS_HEAD, len(images), texts)
        body = b'{"inputs":[%b,"shape":[%d],"data":[%b]}%b]}' % (_HEAD, len(images), data, stated)
        try:
            headers = {"Content-Type": "application/json", **authorization(self._key_file, "inference")}
            async with self._session.post(self._infer, data=body, headers=headers) as response:
                raw = await response.read()
                if response.status != 200:
                    raise ModelServerError(f"{response.status} from the model server: {raw[:200]!r}")
        except ServerUnavailableError as error:
            raise ModelServerError(str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ModelServerError(f"no answer from the model server: {error!r}") from error
        return read_answers(raw, len(images))

    async def healthy(self) -> bool:
        """Return whether the model answers at all, asked about an image that it has no trouble with."""
        try:
            return len(await self.classify([PROBE])) == 1
        except ModelServerError:
            return False


def infer_url(server: str) -> str:
    """Return where a server takes V2 requests; `server` is `http://HOST:PORT`."""
    return f"{server.rstrip('/')}/v2/models/{MODEL_NAME}/infer"


def read_answers(raw: bytes, expected: int) -> list[Answer]:
    """Read a V2 response.

    Args:
        raw: The response's body.
        expected: How many images were asked about.

    Raises:
        AnswerError: It is not such a response, or is about another number of images.
    """
    try:
        found: dict[str, dict[str, Any]] = {output["name"]: output for output in json.loads(raw)["outputs"]}
        # During an upgrade a model server of the release before answers, without `defect` (then the name decides) and
        # without `review_reason`.
        for name in ("defect", "review_reason"):
            found.setdefault(name, {"data": [None] * expected})
        outputs = {tensor.name: _rows(tensor, found[tensor.name]["data"], expected) for tensor in inference.OUTPUTS}
        (digest,) = outputs["model_digest"]
        classes = outputs["classes"]
        answers = [
            Answer(
                label=label,
                probability=outputs["probability"][index],
                probabilities=dict(zip(classes, outputs["probabilities"][index], strict=True)),
                defect=outputs["defect"][index],
                wafer=bool(outputs["wafer"][index]),
                review=outputs["review"][index],
                review_reason=outputs["review_reason"][index],
                error=outputs["error"][index],
                embedding=outputs["embedding"][index],
                map=_map(outputs["map"][index]),
                model=outputs["model_version"][index],
                digest=digest,
            )
            for index, label in enumerate(outputs["label"])
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise AnswerError(f"expected a V2 response with the outputs of a wafer model, got {raw[:200]!r}") from error
    if len(answers) != expected:
        raise AnswerError(f"asked about {expected} images, got {len(answers)} answers")
    return answers


def _map(text: str) -> MapCounts | None:
    counted = json.loads(text) if text else None
    return MapCounts.model_validate(counted) if counted else None


def _rows(tensor: Tensor, data: list[Any], count: int) -> list[Any]:
    """Return a tensor's data by its first size; the protocol allows those of two sizes flat or nested."""
    if len(tensor.shape) == 1 or (data and isinstance(data[0], list)):
        return data
    width = len(data) // count
    return [data[index * width : (index + 1) * width] for index in range(count)]
