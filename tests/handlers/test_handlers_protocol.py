"""Requests and responses as pure values; what needs a server is in test_handlers_servers."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabwafer.maps.image_file import MAX_BYTES
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.maps.wafermap import decode
from fabwafer.models.classifier import Classifier
from fabwafer_handlers import protocol
from fabwafer_handlers.protocol import BadRequestError, Request, Row, decode_base64, is_json, parse, respond
from tests.support.drawings import file
from tests.support.model_servers import b64, image, v1, v2

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "instances", "name", "datatype", "shape", "data", "parameters", "heatmap", "outputs", "b64"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_a_request_or_refused(body: Any) -> None:
    try:
        request = parse(body)
    except BadRequestError:
        return
    assert 1 <= len(request.rows) <= protocol.MAX_IMAGES
    # The one image that base64 can say and that has no bytes is the empty text.
    assert all(row.image or row.error or "" in _texts(body) for row in request.rows)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _texts(item)]


@given(json_values)
def test_any_value_in_place_of_an_image_is_only_its_own_rows_trouble(value: Any) -> None:
    good = b64(b"some bytes")
    for body in (v2(good, value, good), {"instances": [{"b64": good}, value, {"b64": good}]}):
        first, _, third = parse(body).rows
        assert first == third == Row(b"some bytes")


@given(st.binary(min_size=1, max_size=100))
def test_base64_gives_the_bytes_back(data: bytes) -> None:
    assert decode_base64(base64.b64encode(data).decode()) == Row(data)


@pytest.mark.parametrize("length", [MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 3])
def test_more_bytes_than_an_image_may_have_are_not_even_decoded(length: int) -> None:
    row = decode_base64(base64.b64encode(bytes(length)).decode())
    assert len(row.image) == (length if length <= MAX_BYTES else 0)
    assert bool(row.error) == (length > MAX_BYTES)


@pytest.mark.parametrize("text", ["aGkaG", "aGk==", "aG*k=", "é", "aGk=aGk="])
def test_what_is_nearly_base64_is_refused(text: str) -> None:
    assert decode_base64(text).error


def test_an_image_file_is_told_from_json_by_its_first_byte() -> None:
    assert not is_json(image())
    assert not is_json(b"\xff\xd8\xff")
    assert not is_json(b"")
    for text in (b'{"inputs": []}', b"  \n[1]", b'"x"'):
        assert is_json(text)


def test_a_request_without_an_id_gets_one_of_its_own() -> None:
    first, second = parse(v2("x")).id, parse(v2("x")).id
    assert first
    assert first != second
    assert parse(v2("x", id="mine")).id == "mine"


def test_v1_wants_heatmaps_only_where_it_asks_for_an_explanation() -> None:
    assert not parse(v1("x")).heatmap
    assert parse(v1("x"), explain=True).heatmap
    assert not parse(v2("x"), explain=False).heatmap
    assert parse(v2("x", parameters={"heatmap": True})).heatmap


STATED = {"outside": "#FFF", "passed": "#0000ff", "failed": ["#ffff00"]}


def test_colours_may_be_stated_beside_each_image() -> None:
    image_input = v2("", "", "")["inputs"][0]
    texts = ["", json.dumps(STATED), '{"passed": "blue"}']
    colours_input = {"name": "colours", "datatype": "BYTES", "shape": [3], "data": texts}
    instances = [
        {"bytes": {"b64": ""}},
        {"b64": "", "colours": STATED},
        {"bytes": {"b64": ""}, "colours": {"passed": "blue"}},
    ]
    for body in (
        {"inputs": [image_input, colours_input]},
        {"inputs": [colours_input, image_input]},
        {"instances": instances},
    ):
        nothing, stated, broken = parse(body).rows
        assert nothing == Row(b"")
        assert stated.colours == StatedColours(outside=("#ffffff",), passed=("#0000ff",), failed=("#ffff00",))
        assert broken.error == "colours.passed.0: expected a colour as '#rrggbb', got 'blue'"


def test_as_many_colours_as_images_are_expected() -> None:
    colours_input = {"name": "colours", "datatype": "BYTES", "shape": [1], "data": [""]}
    with pytest.raises(BadRequestError, match="colours: expected 2, as many as there are images, got 1"):
        parse({"inputs": [*v2("", "")["inputs"], colours_input]})


def test_both_versions_say_why_a_person_should_look(tiny_model: Path) -> None:
    classifier = Classifier(tiny_model)
    grid = decode(image())
    drawn = file(np.array([(255, 255, 255), (0, 0, 255), (255, 255, 0)], np.uint8)[grid])
    request = parse(v2(b64(drawn), b64(file(np.zeros((50, 50), np.uint8)))))
    answers = classifier.classify([row.image for row in request.rows])
    outputs = {output["name"]: output["data"] for output in respond(request, answers, classifier.card)["outputs"]}
    assert outputs["review_reason"] == ["colours", "not-a-wafer"]
    assert outputs["review"] == [True, True]
    first = respond(parse(v1(b64(drawn))), answers[:1], classifier.card)["predictions"][0]
    assert (first["review"], first["review_reason"]) == (True, "colours")
    assert "#0000ff was read as passed" in first["error"]
    stated = classifier.classify([drawn], [StatedColours.model_validate(STATED)])
    assert stated[0].review_reason in ("", "unsure")


def test_numbers_are_written_no_longer_than_they_are(tiny_model: Path) -> None:
    """A float32 has at most nine digits; written as a float64 it has seventeen, and the answer twice the length."""
    classifier = Classifier(tiny_model)
    request = Request("v2", [Row(image())], id="x")
    body = orjson.dumps(
        respond(request, classifier.classify([image()]), classifier.card), option=orjson.OPT_SERIALIZE_NUMPY
    )
    outputs = {output["name"]: output for output in orjson.loads(body)["outputs"]}
    written = body[body.index(b'"embedding"') :]
    digits = written[written.index(b'"data":[') + 8 : written.index(b"]", written.index(b'"data":['))]
    assert max(map(len, digits.split(b","))) <= 14
    (answer,) = classifier.classify([image()])
    np.testing.assert_array_equal(np.array(outputs["embedding"]["data"], np.float32), answer.embedding)


def test_a_raw_image_that_cannot_be_read_is_a_bad_request(tiny_model: Path) -> None:
    classifier = Classifier(tiny_model)
    with pytest.raises(BadRequestError, match="expected a PNG or JPEG image"):
        respond(protocol.parse_raw(b"x"), classifier.classify([b"x"]), classifier.card)
