"""The TorchServe handler and a whole batch of requests, with TorchServe's own context."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ts.context import Context, RequestProcessor

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.models.card import ModelRefusedError
from fabwafer.models.classifier import Classification, Classifier
from fabwafer_handlers.torchserve import WaferHandler
from tests.support import tiny_models
from tests.support.model_servers import b64, image, tensors, v1, v2


class CountingClassifier(Classifier):
    """A classifier that remembers how many images each call had."""

    calls: list[int]

    def classify(
        self, images: Sequence[bytes], colours: Sequence[StatedColours | None] = (), *, heatmap: bool = False
    ) -> list[Classification]:
        self.calls.append(len(images))
        return super().classify(images, colours, heatmap=heatmap)


@pytest.fixture
def handler(tiny_model: Path) -> WaferHandler:
    handler = WaferHandler()
    handler.initialize(Context("wafer", str(tiny_model), {}, 8, None, "0.12.0"))
    classifier = CountingClassifier(tiny_model)
    classifier.calls = []
    handler.classifier = classifier
    return handler


def answer(
    handler: WaferHandler, *requests: tuple[Any, dict[str, str]] | Any
) -> tuple[list[int], list[dict[str, Any]], list[str | None]]:
    """Hands over a batch as TorchServe's worker does; returns statuses, bodies and content types."""
    pairs = [request if isinstance(request, tuple) else (request, {"content-type": "x"}) for request in requests]
    context = Context("wafer", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor(headers) for _, headers in pairs]
    data = [{"body": bytearray(body if isinstance(body, bytes) else json.dumps(body).encode())} for body, _ in pairs]
    bodies = handler.handle(data, context)
    indexes = range(len(pairs))
    return (
        [context.get_response_status(index)[0] for index in indexes],
        [json.loads(body) for body in bodies],
        [context.get_response_content_type(index) for index in indexes],
    )


def calls(handler: WaferHandler) -> list[int]:
    assert isinstance(handler.classifier, CountingClassifier)
    return handler.classifier.calls


def test_all_images_of_all_requests_go_through_the_network_in_one_call(handler: WaferHandler) -> None:
    text = b64(image())
    statuses, _, kinds = answer(handler, v2(text, text), v1(text), v2(text, "bad", text), image())
    assert statuses == [200] * 4
    assert kinds == ["application/json"] * 4
    assert calls(handler) == [7]


def test_each_request_gets_its_own_answers_in_the_form_it_asked_in(handler: WaferHandler) -> None:
    images = [image(20 + i, 24, seed=i) for i in range(5)]
    texts = [b64(data) for data in images]
    _, bodies, _ = answer(handler, v2(*texts[:2]), v1(texts[2]), images[3], v2(texts[4]))
    maps = [json.loads(text) for text in tensors(bodies[0])["map"]]
    maps += [bodies[1]["predictions"][0]["map"], bodies[2]["map"]]
    maps += [json.loads(text) for text in tensors(bodies[3])["map"]]
    assert [counted["rows"] for counted in maps] == [20, 21, 22, 23, 24]


def test_bad_requests_are_refused_beside_good_ones_that_are_answered(handler: WaferHandler) -> None:
    text = b64(image())
    statuses, bodies, _ = answer(handler, b"{", v2(text), {"inputs": 3}, b"no image", v2("bad"), v1(text))
    assert statuses == [400, 200, 400, 400, 200, 200]
    for index in (0, 2, 3):
        assert list(bodies[index]) == ["error"]
    assert tensors(bodies[1])["wafer"].tolist() == [True]
    assert tensors(bodies[4])["label"].tolist() == [""]


def test_a_heatmap_goes_only_to_the_request_that_wants_it(handler: WaferHandler) -> None:
    text = b64(image())
    explain = (v1(text), {"explain": "True"})
    _, bodies, _ = answer(handler, v2(text), v2(text, parameters={"heatmap": True}), v1(text), explain)
    assert "heatmap" not in tensors(bodies[0])
    assert tensors(bodies[1])["heatmap"].shape == (1, 30, 26)
    assert "heatmap" not in bodies[2]["predictions"][0]
    assert len(bodies[3]["predictions"][0]["heatmap"]) == 30


def test_a_heatmap_too_large_for_one_answer_spares_its_neighbours(handler: WaferHandler) -> None:
    large = [b64(image(300, 300))] * 12
    statuses, bodies, _ = answer(handler, v2(*large, parameters={"heatmap": True}), v2(b64(image())))
    assert statuses == [400, 200]
    assert "ask for fewer" in bodies[0]["error"]


def test_a_batch_of_nothing_but_bad_requests_is_answered(handler: WaferHandler) -> None:
    statuses, _, _ = answer(handler, b"{", b"[]", b'"x"')
    assert statuses == [400] * 3


def test_a_get_beside_requests_learns_what_the_model_is(handler: WaferHandler) -> None:
    statuses, bodies, _ = answer(handler, (b"", {}), v2(b64(image())), b"")
    assert statuses == [200, 200, 400]
    assert bodies[0]["versions"] == ["tiny-1"]
    assert bodies[0]["digest"] == handler.classifier.card.digest


def test_a_form_with_one_file_is_that_file(handler: WaferHandler) -> None:
    context = Context("wafer", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor({}), RequestProcessor({})]
    one, two = handler.handle([{"data": bytearray(image())}, {"a": image(), "b": image()}], context)
    assert json.loads(one)["wafer"]
    assert context.get_response_status(1)[0] == 400
    assert "one image in the form, got 2" in json.loads(two)["error"]


def test_a_changed_model_file_is_refused_at_load(tmp_path: Path) -> None:
    model = tiny_models.make(tmp_path)
    with (model / "tiny.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelRefusedError, match="should have SHA-256"):
        WaferHandler().initialize(Context("wafer", str(model), {}, 8, None, "0.12.0"))


def test_the_handler_asks_for_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, fabwafer_handlers.torchserve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
