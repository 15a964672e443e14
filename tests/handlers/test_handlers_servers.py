"""What clients may expect of the model server, whichever of the two it is."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabwafer.models.classifier import Classifier
from fabwafer_handlers import protocol
from tests.support.model_servers import KServe, TorchServe, b64, image, post, tensors, v1, v2

Server = TorchServe | KServe


def infer(server: Server, body: Any) -> tuple[int, dict[str, Any]]:
    return post(f"{server.url}/v2/models/wafer/infer", body)


def predict(server: Server, body: Any, verb: str = "predict") -> tuple[int, dict[str, Any]]:
    return post(f"{server.url}/v1/models/wafer:{verb}", body)


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier(tiny_model)


def test_v2_answers_what_the_classifier_says_in_the_promised_types_and_shapes(
    either_server: Server, classifier: Classifier
) -> None:
    images = [image(seed=1), image(40, 52, seed=2), image(seed=3)]
    status, response = infer(either_server, v2(*map(b64, images), id="a-7"))
    assert status == 200
    assert (response["id"], response["model_name"], response["model_version"]) == ("a-7", "wafer", "tiny-1")
    assert {output["name"]: (output["datatype"], output["shape"]) for output in response["outputs"]} == {
        "label": ("BYTES", [3]),
        "probability": ("FP32", [3]),
        "probabilities": ("FP32", [3, 9]),
        "defect": ("BOOL", [3]),
        "wafer": ("BOOL", [3]),
        "review": ("BOOL", [3]),
        "review_reason": ("BYTES", [3]),
        "error": ("BYTES", [3]),
        "embedding": ("FP32", [3, 8]),
        "map": ("BYTES", [3]),
        "model_version": ("BYTES", [3]),
        "model_digest": ("BYTES", [1]),
        "classes": ("BYTES", [9]),
    }
    found = tensors(response)
    for row, expected in enumerate(classifier.classify(images)):
        assert found["label"][row] == expected.label
        assert found["probability"][row] == np.float32(expected.probability)
        np.testing.assert_allclose(found["probabilities"][row], expected.probabilities, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found["embedding"][row], expected.embedding, rtol=1e-5, atol=1e-6)
        assert found["defect"][row] == expected.defect
        assert (found["wafer"][row], found["review"][row], found["error"][row]) == (True, expected.review, "")
        assert expected.map is not None
        assert json.loads(found["map"][row]) == dict(expected.map)
        assert found["model_version"][row] == "tiny-1"
    assert list(found["model_digest"]) == [classifier.card.digest]
    assert list(found["classes"]) == classifier.card.classes


def test_v1_and_v2_say_the_same(either_server: Server) -> None:
    images = [b64(image(seed=4)), b64(b"no image"), b64(image(seed=5))]
    _, response = infer(either_server, v2(*images))
    status, answer = predict(either_server, v1(*images))
    assert status == 200
    found = tensors(response)
    assert len(answer["predictions"]) == 3
    for row, prediction in enumerate(answer["predictions"]):
        assert "heatmap" not in prediction
        for name in ("label", "defect", "wafer", "review", "error", "model_version"):
            assert prediction[name] == found[name][row]
        assert np.float32(prediction["probability"]) == found["probability"][row]
        assert list(prediction["probabilities"]) == list(found["classes"])
        values = np.array(list(prediction["probabilities"].values()), np.float32)
        np.testing.assert_array_equal(values, found["probabilities"][row])
        np.testing.assert_array_equal(np.array(prediction["embedding"], np.float32), found["embedding"][row])
        assert prediction["map"] == json.loads(found["map"][row])


def test_instances_may_leave_out_the_word_bytes(either_server: Server) -> None:
    text = b64(image())
    assert predict(either_server, {"instances": [{"b64": text}]}) == predict(either_server, v1(text))


def test_a_heatmap_covers_the_dies_and_is_padded_to_the_largest_grid(
    either_server: Server, classifier: Classifier
) -> None:
    images = [image(30, 26), image(20, 40), b"no image"]
    status, response = infer(either_server, v2(*map(b64, images), parameters={"heatmap": True}))
    assert status == 200
    found = tensors(response)
    heatmaps = found["heatmap"]
    assert heatmaps.shape == (3, 30, 40)
    for row, expected in enumerate(classifier.classify(images, heatmap=True)[:2]):
        assert expected.heatmap is not None
        size = json.loads(found["map"][row])
        assert (size["rows"], size["columns"]) == expected.heatmap.shape
        own = heatmaps[row, : size["rows"], : size["columns"]]
        np.testing.assert_allclose(own, expected.heatmap, rtol=1e-4, atol=1e-4)
        assert np.count_nonzero(heatmaps[row]) == np.count_nonzero(own) > 0
    assert not heatmaps[2].any()


def test_explain_adds_the_heatmap_in_its_true_size(either_server: Server, classifier: Classifier) -> None:
    status, answer = predict(either_server, v1(b64(image(20, 40)), b64(b"no image")), "explain")
    assert status == 200
    first, second = answer["predictions"]
    (expected,) = classifier.classify([image(20, 40)], heatmap=True)
    assert expected.heatmap is not None
    np.testing.assert_allclose(np.array(first["heatmap"]), expected.heatmap, rtol=1e-4, atol=1e-4)
    assert second["heatmap"] is None


def test_heatmaps_of_nothing_but_bad_images_are_empty(either_server: Server) -> None:
    status, response = infer(either_server, v2(b64(b"no image"), parameters={"heatmap": True}))
    assert status == 200
    assert tensors(response)["heatmap"].shape == (1, 0, 0)


def test_only_the_outputs_that_are_asked_for_come_back(either_server: Server) -> None:
    status, response = infer(either_server, v2(b64(image()), outputs=[{"name": "wafer"}, {"name": "label"}]))
    assert status == 200
    assert [output["name"] for output in response["outputs"]] == ["label", "wafer"]


def test_a_picture_that_is_no_wafer_map_is_no_error_of_the_request(either_server: Server) -> None:
    from fabwafer.maps.wafermap import encode

    flat = encode(np.ones((40, 40), np.uint8))
    status, response = infer(either_server, v2(b64(image()), b64(flat)))
    assert status == 200
    found = tensors(response)
    assert found["wafer"].tolist() == [True, False]
    assert found["label"][1] == "not-a-wafer"
    assert found["review"][1]
    assert found["probability"][1] == 0
    assert json.loads(found["map"][1]) is None


BAD_ROWS = {
    "no base64": "*not base64*",
    "a number": 7,
    "nothing": None,
    "no bytes": "",
    "no image": b64(b"plain text"),
    "cut off": b64(image()[:60]),
    "too many bytes": b64(bytes(3_000_000)),
    "an animation": b64(b"GIF89a"),
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_image_gets_a_reason_and_spares_its_neighbours(either_server: Server, bad: Any) -> None:
    good = [b64(image(seed=6)), b64(image(seed=7))]
    _, alone = infer(either_server, v2(*good))
    status, response = infer(either_server, v2(good[0], bad, good[1]))
    assert status == 200
    found, expected = tensors(response), tensors(alone)
    assert found["label"].tolist() == [expected["label"][0], "", expected["label"][1]]
    assert found["error"][0] == found["error"][2] == ""
    assert found["error"][1].startswith("expected ")
    assert not found["wafer"][1]
    np.testing.assert_allclose(found["probabilities"][[0, 2]], expected["probabilities"], rtol=1e-4, atol=1e-6)
    assert not found["probabilities"][1].any()

    status, answer = predict(either_server, v1(good[0], bad, good[1]))
    assert status == 200
    assert [p["label"] for p in answer["predictions"]] == found["label"].tolist()


def _with(**changes: Any) -> dict[str, Any]:
    body = v2("x")
    body["inputs"][0] |= changes
    return body


BAD_V2 = {
    "no JSON": b'{"inputs": [',
    "a list": [1, 2],
    "neither version": {"images": []},
    "no input": {"inputs": []},
    "two inputs": {"inputs": v2("x")["inputs"] * 2},
    "another name": _with(name="picture"),
    "another type": _with(datatype="UINT8"),
    "another shape": _with(shape=[2]),
    "two dimensions": _with(shape=[1, 1]),
    "no data": _with(data="x"),
    "no images": v2(),
    "too many images": v2(*["x"] * (protocol.MAX_IMAGES + 1)),
    "no such output": v2("x", outputs=[{"name": "cause"}]),
    "heatmap by word": v2("x", parameters={"heatmap": "yes"}),
}


@pytest.mark.parametrize("body", BAD_V2.values(), ids=BAD_V2)
def test_a_v2_request_that_is_not_understood_is_refused_with_one_sentence(either_server: Server, body: Any) -> None:
    status, answer = infer(either_server, body)
    assert status == 400
    assert isinstance(answer["error"], str)
    assert len(answer["error"]) > 10
    assert "Traceback" not in answer["error"]


BAD_V1 = {
    "no JSON": b"{",
    "no list": {"instances": 3},
    "no images": {"instances": []},
    "too many images": v1(*["x"] * (protocol.MAX_IMAGES + 1)),
    "neither version": {"rows": []},
}


@pytest.mark.parametrize("body", BAD_V1.values(), ids=BAD_V1)
def test_a_v1_request_that_is_not_understood_is_refused_with_one_sentence(either_server: Server, body: Any) -> None:
    status, answer = predict(either_server, body)
    assert status == 400
    assert len(answer["error"]) > 10


def test_heatmaps_too_large_for_one_answer_are_refused(either_server: Server) -> None:
    large = b64(image(300, 300))
    status, answer = infer(either_server, v2(*[large] * 12, parameters={"heatmap": True}))
    assert status == 400
    assert "ask for fewer at a time" in answer["error"]
    assert infer(either_server, v2(large, parameters={"heatmap": True}))[0] == 200


def test_concurrent_requests_never_take_each_others_answers(either_server: Server, classifier: Classifier) -> None:
    """More at once than a batch holds, good and bad ones mixed, each with another number of images."""
    images = [image(24 + seed, 30, seed=seed) for seed in range(12)]
    maps = [dict(answer.map) for answer in classifier.classify(images) if answer.map]

    def ask(number: int) -> tuple[int, Any]:
        if number % 5 == 4:
            return infer(either_server, {"inputs": number})
        rows = [(number + i) % len(images) for i in range(number % 4 + 1)]
        status, response = infer(either_server, v2(*[b64(images[row]) for row in rows], b64(b"no image")))
        found = tensors(response)
        assert [json.loads(text) for text in found["map"]] == [*(maps[row] for row in rows), None]
        assert [bool(error) for error in found["error"]] == [False] * len(rows) + [True]
        return status, None

    with ThreadPoolExecutor(24) as pool:
        statuses = [status for status, _ in pool.map(ask, range(120))]
    assert statuses == [400 if number % 5 == 4 else 200 for number in range(120)]
