"""The TorchServe handler: bodies in, bodies out, with `fabwafer_handlers.protocol` and the classifier in between.

TorchServe hands over a batch of requests, each with any number of images. All images of all requests go through the
classifier in one call, and each request gets its own status, so that a bad one never fails its neighbours.

TorchServe has no page that tells whether a model can answer: /ping is about the Java process, and the management API's
description needs reading. So a GET of an inference path, which has no body, is answered with what the model is; it
comes from the worker, and only when the worker has loaded the model.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from fabwafer.models.classifier import Classification, Classifier
from fabwafer_handlers import protocol


class WaferHandler:
    """What TorchServe calls: `initialize` once in each worker, then `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """Load the model that the archive holds.

        Args:
            context: TorchServe's context; its `model_dir` is the unpacked archive.

        Raises:
            ModelRefusedError: The model is not the one its card describes. The worker then ends with the reason in
                its log, and TorchServe starts it again and again, ever more slowly.
        """
        self.classifier = Classifier(Path(context.system_properties["model_dir"]))
        logging.getLogger(__name__).warning(
            "serving model %s, digest %s", self.classifier.card.version, self.classifier.card.digest
        )
        # The worker's protocol writes a line for each request, and one for each of its own metrics, which the Java
        # side reads and parses; its own counters and latencies are measured there and do not come this way.
        logging.getLogger().setLevel(logging.WARNING)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch of requests.

        Args:
            data: For each request its parts by name; `body` is the whole body where it is not a form.
            context: TorchServe's context, which takes the status and the headers of each answer.

        Returns:
            The body of each answer, JSON.
        """
        requests = [_parsed(parts, context.get_all_request_header(index)) for index, parts in enumerate(data)]
        answers = _classify(self.classifier, requests)
        responses = []
        for index, (request, own) in enumerate(zip(requests, answers, strict=True)):
            context.set_response_content_type(index, "application/json")
            body, status = self._answer(request, own)
            if status != HTTPStatus.OK:
                context.set_response_status(code=status.value, phrase=status.phrase, idx=index)
            responses.append(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
        return responses

    def _answer(self, request: "_Parsed", answers: Sequence[Classification]) -> tuple[dict[str, Any], HTTPStatus]:
        card = self.classifier.card
        if request is None:
            return protocol.describe(card), HTTPStatus.OK
        try:
            if isinstance(request, protocol.BadRequestError):
                raise request
            return protocol.respond(request, answers, card), HTTPStatus.OK
        except protocol.BadRequestError as error:
            return {"error": str(error)}, HTTPStatus.BAD_REQUEST


_Parsed: TypeAlias = protocol.Request | protocol.BadRequestError | None
"""A request, why it is none, or None where a GET asks what the model is."""


def _parsed(parts: Mapping[str, Any], headers: Mapping[str, Any]) -> _Parsed:
    # Neither a body nor a type of one: TorchServe does not pass on the method, and gives every request a length.
    if not any(parts.values()) and not any(name.lower() == "content-type" for name in headers):
        return None
    try:
        return _parse(parts, explain=headers.get("explain") == "True")
    except protocol.BadRequestError as error:
        return error


def _parse(parts: Mapping[str, Any], *, explain: bool) -> protocol.Request:
    body = parts.get("body")
    if body is None:
        if len(parts) != 1:
            raise protocol.BadRequestError(f"expected one image in the form, got {len(parts)} parts")
        body = next(iter(parts.values()))
    if isinstance(body, str):
        body = body.encode()
    if not protocol.is_json(body):
        return protocol.parse_raw(bytes(body), heatmap=explain)
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise protocol.BadRequestError(f"expected JSON or the bytes of an image, got broken JSON: {error}") from None
    return protocol.parse(decoded, explain=explain)


def _classify(classifier: Classifier, requests: Sequence[_Parsed]) -> list[list[Classification]]:
    """Classify the images of all requests in one call and return the answers by request."""
    understood = [request for request in requests if isinstance(request, protocol.Request)]
    heatmap = any(request.heatmap for request in understood)
    rows = [row for request in understood for row in request.rows]
    answers = iter(classifier.classify([row.image for row in rows], [row.colours for row in rows], heatmap=heatmap))
    return [
        [next(answers) for _ in request.rows] if isinstance(request, protocol.Request) else [] for request in requests
    ]
