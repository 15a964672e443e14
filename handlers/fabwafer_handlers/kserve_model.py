"""The same answers from KServe's own Python server, which can take TorchServe's place: upstream no longer maintains it.

`python -m fabwafer_handlers.kserve_model --model_dir DIR` serves the model; KServe's own options are understood too.
"""

import argparse
import asyncio
import logging
from pathlib import Path
from typing import Any

import kserve
import numpy as np
import orjson
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve import model_server
from kserve.errors import InvalidInput

from fabwafer.messages.inference import MODEL_NAME
from fabwafer.models.card import ModelRefusedError
from fabwafer.models.classifier import Classifier
from fabwafer_handlers import protocol


class WaferModel(kserve.Model):  # type: ignore[misc]
    """A model folder as a KServe model.

    Args:
        directory: The model's folder.
        name: The name it is served under.
    """

    def __init__(self, directory: Path, name: str = MODEL_NAME) -> None:
        super().__init__(name)
        self._directory = directory

    def load(self) -> bool:
        """Load the model; only then is the server ready.

        Raises:
            ModelRefusedError: The model is not the one its card describes.
        """
        self._classifier = Classifier(self._directory)
        self.ready = True
        return self.ready

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the one input, for V2's model metadata."""
        inputs: list[dict[str, Any]] = protocol.describe(self._classifier.card)["inputs"]
        return inputs

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the outputs, for V2's model metadata."""
        outputs: list[dict[str, Any]] = protocol.describe(self._classifier.card)["outputs"]
        return outputs

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> Any:
        """Answer a V1 body (a dict, or the bytes of an image) or a V2 request.

        Raises:
            InvalidInput: The request is not understood; KServe answers 400 with the reason.
        """
        return await self._answer(payload, explain=False)

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """Answer like `predict`, with the heatmaps.

        Raises:
            InvalidInput: The request is not understood; KServe answers 400 with the reason.
        """
        return await self._answer(payload, explain=True)

    async def _answer(self, payload: Any, *, explain: bool) -> Any:
        try:
            request = _parse(payload, explain=explain)
            # In a thread, so that probes are answered meanwhile.
            answers = await asyncio.to_thread(
                self._classifier.classify,
                [row.image for row in request.rows],
                [row.colours for row in request.rows],
                heatmap=request.heatmap,
            )
            body = protocol.respond(request, answers, self._classifier.card)
        except protocol.BadRequestError as error:
            raise InvalidInput(str(error)) from None
        if request.form != "v2":
            # Through JSON and back, since KServe hands on plain values alone.
            return orjson.loads(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
        outputs = [
            kserve.InferOutput(output["name"], output["shape"], output["datatype"], _plain(output["data"]))
            for output in body["outputs"]
        ]
        # KServe answers 500 to a response without an id, so a request without one has been given one.
        return kserve.InferResponse(body["id"], self.name, outputs, model_version=body["model_version"])


def _plain(data: Any) -> Any:
    return data.tolist() if isinstance(data, np.ndarray) else data


def _parse(payload: Any, *, explain: bool) -> protocol.Request:
    if isinstance(payload, bytes):
        return protocol.parse_raw(payload, heatmap=explain)
    if not isinstance(payload, kserve.InferRequest):
        return protocol.parse(payload, explain=explain)
    return protocol.parse_v2(
        {
            "id": payload.id or None,
            "inputs": [
                {"name": i.name, "shape": list(i.shape), "datatype": i.datatype, "data": _data(i)}
                for i in payload.inputs
            ],
            "parameters": payload.parameters,
            "outputs": [{"name": output.name} for output in payload.request_outputs or []],
        }
    )


def _data(image: Any) -> Any:
    """Return an input's data: base64 texts of a JSON body, or the images' bytes where they came by gRPC."""
    if image.data is not None:
        return list(image.data)
    return list(image.as_numpy().ravel()) if image.datatype == "BYTES" else None


async def _refuse(_: HttpRequest, error: Exception) -> JSONResponse:
    """Answer a body that KServe itself finds malformed: 400 with one sentence, as any other bad request."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for no other
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str)) or "the body"
    return JSONResponse({"error": f"{where}: {first['msg']}"}, status_code=400)


def main() -> None:
    """Serve a model folder."""
    parser = argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("--model_dir", type=Path, default=Path("/mnt/models/wafer"), help="the model's folder")
    parser.add_argument("--model_name", default=MODEL_NAME, help="the name to serve it under")
    arguments = parser.parse_args()
    model = WaferModel(arguments.model_dir, arguments.model_name)
    try:
        model.load()
    except ModelRefusedError as error:
        raise SystemExit(str(error)) from None
    model_server.app.add_exception_handler(RequestValidationError, _refuse)
    server = kserve.ModelServer(enable_latency_logging=False)
    # They write three lines for each request; the metrics have the same.
    for name in ("kserve.trace", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start([model])


if __name__ == "__main__":
    main()
