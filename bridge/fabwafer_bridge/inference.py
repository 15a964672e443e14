"""The model server, asked by the V2 inference protocol."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from fabwafer.errors import FabwaferError

MODEL: Final = "wafer"
TIMEOUT: Final = 10.0
"""Seconds for one call; shorter than a message's ack_wait, so that nothing is delivered twice while it is asked."""

# The smallest grey PNG: an image that the server answers, with `not-a-wafer`, when it is well.
_PROBE: Final = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
        "0000000a49444154789c63600000000200014898e3760000000049454e44ae426082"
    )
).decode()


class ModelServerError(FabwaferError):
    """A call that brought no answers: the server is down, busy, or choked on the request."""


class AnswerError(ModelServerError):
    """An answer that is not what the protocol says."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model server said of one image; without a label, `error` says why the image cannot be read."""

    label: str
    probability: float
    probabilities: dict[str, float]
    wafer: bool
    review: bool | None
    error: str
    embedding: list[float]
    map: dict[str, int] | None
    model: str
    digest: str


class ModelServer:
    """A client of one model behind one address.

    Args:
        session: The HTTP session; its connector bounds the connections.
        infer: Where it takes V2 requests, see `infer_url`.
    """

    def __init__(self, session: aiohttp.ClientSession, infer: str) -> None:
        self._session = session
        self._infer = infer

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """Opens the HTTP session that calls are made in."""
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            connector=aiohttp.TCPConnector(limit=16, keepalive_timeout=30),
        )

    async def classify(self, encoded: Sequence[str]) -> list[Answer]:
        """Asks for the class of each image.

        Args:
            encoded: Image files in base64, n of them, checked already.

        Returns:
            n answers in the same order; one without a label is about its own image alone.

        Raises:
            ModelServerError: There were no answers; none of the images can be blamed for it.
        """
        body = (
            f'{{"inputs":[{{"name":"image","shape":[{len(encoded)}],"datatype":"BYTES","data":['
            + ",".join(f'"{text}"' for text in encoded)
            + "]}]}"
        )
        try:
            async with self._session.post(
                self._infer, data=body.encode("ascii"), headers={"Content-Type": "application/json"}
            ) as response:
                raw = await response.read()
                if response.status != 200:
                    raise ModelServerError(f"{response.status} from the model server: {raw[:200]!r}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ModelServerError(f"no answer from the model server: {error!r}") from error
        return read_answers(raw, len(encoded))

    async def healthy(self) -> bool:
        """Tells whether the model answers at all: asks it about an image that it has no trouble with."""
        try:
            return len(await self.classify([_PROBE])) == 1
        except ModelServerError:
            return False


def infer_url(server: str) -> str:
    """Returns where a server takes V2 requests; `server` is `http://HOST:PORT`."""
    return f"{server.rstrip('/')}/v2/models/{MODEL}/infer"


def read_answers(raw: bytes, expected: int) -> list[Answer]:
    """Reads a V2 response.

    Args:
        raw: The response's body.
        expected: How many images were asked about.

    Raises:
        AnswerError: It is not such a response, or is about another number of images.
    """
    try:
        outputs: dict[str, dict[str, Any]] = {output["name"]: output for output in json.loads(raw)["outputs"]}
        labels = outputs["label"]["data"]
        probability = outputs["probability"]["data"]
        wafers = outputs["wafer"]["data"]
        errors = outputs["error"]["data"]
        maps = outputs["map"]["data"]
        models = outputs["model_version"]["data"]
        reviews = outputs["review"]["data"]
        classes = outputs["classes"]["data"]
        (digest,) = outputs["model_digest"]["data"]
        probabilities = _rows(outputs["probabilities"], len(labels))
        embeddings = _rows(outputs["embedding"], len(labels))
        answers = [
            Answer(
                label=label,
                probability=probability[index],
                probabilities=dict(zip(classes, probabilities[index], strict=True)),
                wafer=bool(wafers[index]),
                review=reviews[index],
                error=errors[index],
                embedding=embeddings[index],
                map=json.loads(maps[index]) if maps[index] else None,
                model=models[index],
                digest=digest,
            )
            for index, label in enumerate(labels)
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise AnswerError(f"expected a V2 response with the outputs of a wafer model, got {raw[:200]!r}") from error
    if len(answers) != expected:
        raise AnswerError(f"asked about {expected} images, got {len(answers)} answers")
    return answers


def _rows(output: dict[str, Any], count: int) -> list[list[float]]:
    """Splits a tensor of shape [n, d], whose data the protocol allows flat or nested."""
    data = output["data"]
    if data and isinstance(data[0], list):
        return list(data)
    width = len(data) // count if count else 0
    return [data[index * width : (index + 1) * width] for index in range(count)]
