"""Messages are written strictly and read kindly."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabwafer.messages.bodies import (
    UNKNOWN_MODEL,
    Image,
    ImageMetadata,
    read_device_prediction,
    read_image,
    read_stored_prediction,
)
from fabwafer.messages.headers import MESSAGE_BYTES, Receipt
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import (
    Topic,
    sender_subject,
    subject_of_image,
    subject_of_prediction,
    subject_of_shadow_image,
    subject_of_shadow_prediction,
)

TOPIC = Topic("faba", "camera1", "prediction", "img1")
IMAGE_TOPIC = Topic("faba", "camera1", "img", "img1")

names = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


def prediction(**changes: Any) -> bytes:
    body = {
        "imgid": "img1",
        "timestamp": 1554134552944,
        "fab": "faba",
        "camera": "camera1",
        "prediction": "loc",
        "probability": 0.9,
    }
    return json.dumps({key: value for key, value in (body | changes).items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (1554134552944, 1554134552944),
        ("1554134552944", 1554134552944),
        (1554134552, 1554134552000),
        ("1554134552", 1554134552000),
        (1554134552.944, 1554134552944),
        ("1554134552.5", 1554134552500),
        (0, 0),
    ],
)
def test_a_timestamp_is_milliseconds_or_seconds_in_a_number_or_a_string(sent: object, read: int) -> None:
    assert read_device_prediction(TOPIC, prediction(timestamp=sent)).timestamp == read


@pytest.mark.parametrize("sent", [None, True, "yesterday", [], -1, "nan", float("inf"), 1e15, 10**400])
def test_a_timestamp_that_is_none_is_refused_by_name(sent: object) -> None:
    with pytest.raises(MessageRefusedError, match="timestamp"):
        read_device_prediction(TOPIC, prediction(timestamp=sent))


@pytest.mark.parametrize(
    ("sent", "read"),
    [(0.4, 0.4), (1, 1.0), (0, 0.0), (50.0, 0.5), ("50.0", 0.5), ("0.25", 0.25), (100, 1.0), (1.5, 0.015)],
)
def test_a_probability_is_a_fraction_or_percent(sent: object, read: float) -> None:
    assert read_device_prediction(TOPIC, prediction(probability=sent)).probability == pytest.approx(read)


@pytest.mark.parametrize("sent", [-0.1, 100.1, "high", None, float("nan"), True])
def test_a_probability_that_is_none_is_refused_by_name(sent: object) -> None:
    with pytest.raises(MessageRefusedError, match="probability"):
        read_device_prediction(TOPIC, prediction(probability=sent))


@pytest.mark.parametrize(
    ("sent", "read"), [("loc", "Loc"), ("EDGE-RING", "Edge-Ring"), ("None", "none"), ("Own", "Own")]
)
def test_a_class_is_known_in_any_case(sent: str, read: str) -> None:
    assert read_device_prediction(TOPIC, prediction(prediction=sent)).prediction == read


def test_a_device_cannot_speak_for_the_cluster() -> None:
    read = read_device_prediction(TOPIC, prediction(source="cluster", wafer=False, review=False))
    assert (read.source, read.wafer, read.review) == ("device", None, None)


def test_a_model_that_is_not_named_is_unknown() -> None:
    assert read_device_prediction(TOPIC, prediction()).model == UNKNOWN_MODEL
    assert read_device_prediction(TOPIC, prediction(model=None)).model == UNKNOWN_MODEL
    assert read_device_prediction(TOPIC, prediction(model="own-3")).model == "own-3"


def test_unknown_fields_are_kept_and_carried_on() -> None:
    read = read_device_prediction(TOPIC, prediction(lot="L1", slot=7, operator={"name": "x"}))
    written = json.loads(read.to_json())
    assert (written["lot"], written["slot"], written["operator"]) == ("L1", "7", {"name": "x"})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), "nan"])
@pytest.mark.parametrize(
    ("field", "made"),
    [
        ("probabilities.Loc", lambda number: {"probabilities": {"Loc": number}}),
        ("embedding.1", lambda number: {"embedding": [0.5, number]}),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_name(field: str, made: Any, number: object) -> None:
    with pytest.raises(MessageRefusedError, match=f"'{field}': .*finite number"):
        read_device_prediction(TOPIC, prediction(**made(number)))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_an_unknown_field_that_no_reader_takes_back_is_refused_by_name(number: str) -> None:
    body = prediction(bytes="QUJD", press={"bar": [1, "?"]}).replace(b'"?"', number.encode())
    for read in (lambda: read_device_prediction(TOPIC, body), lambda: read_image(IMAGE_TOPIC, body)):
        with pytest.raises(MessageRefusedError, match=r"'press\.bar\.1': expected a finite number"):
            read()


@pytest.mark.parametrize("levels", [100, 250, 900])
def test_fields_nested_too_deep_are_refused_by_name(levels: int) -> None:
    body = prediction(note="?").replace(b'"?"', b"[" * levels + b"]" * levels)
    with pytest.raises(MessageRefusedError, match="'note': expected at most"):
        read_device_prediction(TOPIC, body)


@pytest.mark.parametrize("more", [{"note": "\ud800"}, {"note": {"\udfff": 1}}, {"\ud800": 1}])
def test_half_a_surrogate_pair_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(MessageRefusedError, match="surrogate pair"):
        read_device_prediction(TOPIC, prediction(**more))


def test_the_imgid_of_the_body_wins_over_the_topic() -> None:
    assert read_device_prediction(TOPIC, prediction(imgid="img3")).imgid == "img3"


@pytest.mark.parametrize("field", ["fab", "camera"])
def test_topic_and_body_must_agree_on_who_sent_it(field: str) -> None:
    with pytest.raises(MessageRefusedError, match=f"{field} in the topic .* they must agree"):
        read_device_prediction(TOPIC, prediction(**{field: "another"}))


@pytest.mark.parametrize("name", ["a.b", "a b", "*", ">", "ü", "🙂", "", "x" * 65, None, 7])
@pytest.mark.parametrize("field", ["fab", "camera", "imgid"])
def test_a_name_that_would_mean_something_else_on_the_bus_is_refused(field: str, name: object) -> None:
    with pytest.raises(MessageRefusedError, match=field):
        read_device_prediction(TOPIC, prediction(**{field: name}))


@pytest.mark.parametrize("field", ["imgid", "timestamp", "fab", "camera", "prediction", "probability"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(MessageRefusedError, match=f"'{field}' is missing"):
        read_device_prediction(TOPIC, prediction(**{field: ...}))


@pytest.mark.parametrize("payload", [b"", b"{", b"null", b"[1]", b"\xff\xfe", b'"x"', b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageRefusedError, match="expected"):
        read_image(IMAGE_TOPIC, payload)


def test_an_image_message_holds_the_file_that_was_sent() -> None:
    image = Image.of_file(b"\x89PNG", imgid="img1", timestamp=1554134552, fab="faba", camera="camera1", lot="L7")
    read = read_image(IMAGE_TOPIC, image.to_json())
    assert (read.data, read.metadata.timestamp, read.metadata.lot) == (b"\x89PNG", 1554134552000, "L7")


@pytest.mark.parametrize("text", ["not base64!", "QUJDR", "Ü"])
def test_bad_base64_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(MessageRefusedError, match=r"^field 'bytes': expected base64 of an image file, got ") as refused:
        read_image(IMAGE_TOPIC, prediction(bytes=text))
    assert refused.value.code == "base64"


@pytest.mark.parametrize("sent", [..., None, 7, ["QUJD"]])
def test_an_image_message_without_base64_is_refused_by_name(sent: object) -> None:
    with pytest.raises(MessageRefusedError, match="'bytes'"):
        read_image(IMAGE_TOPIC, prediction(bytes=sent))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(texts.filter(lambda name: name != "bytes"), texts, max_size=5), texts)
def test_the_fields_of_an_image_survive_the_header(more: dict[str, str], lot: str) -> None:
    metadata = ImageMetadata(imgid="i", timestamp=1, fab="faba", camera="camera1").model_copy(
        update={"lot": lot, **{f"x{name}": value for name, value in more.items()}}
    )
    line = metadata.to_header()
    assert line.isascii()
    assert line.isprintable() or "\x7f" in line
    assert ImageMetadata.from_header(line).to_json() == metadata.to_json()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
unknown = st.dictionaries(texts.map(lambda name: f"x{name}"), json_values, max_size=4)
times = st.integers(0, 10**14 - 1) | st.floats(0, 1e13)


@given(unknown, times)
def test_an_image_is_read_back_from_its_header_as_it_was_written(more: dict[str, Any], timestamp: float) -> None:
    metadata = read_image(IMAGE_TOPIC, prediction(bytes="QUJD", timestamp=timestamp, **more)).metadata
    assert ImageMetadata.from_header(metadata.to_header()).to_json() == metadata.to_json()


@given(unknown, times, st.floats(0, 100), st.lists(st.floats(-1e6, 1e6), max_size=4), st.floats(0, 1))
def test_a_prediction_is_read_back_as_it_was_written(
    more: dict[str, Any], timestamp: float, probability: float, embedding: list[float], other: float
) -> None:
    sent = prediction(
        timestamp=timestamp, probability=probability, embedding=embedding, probabilities={"Loc": other}, **more
    )
    written = read_device_prediction(TOPIC, sent)
    read = read_stored_prediction(written.to_json())
    assert (read.timestamp, read.probability) == (written.timestamp, written.probability)
    assert read.to_json() == written.to_json()


def test_more_fields_than_a_header_may_have_are_refused() -> None:
    fits = read_image(IMAGE_TOPIC, prediction(bytes="QUJD", note="x" * 30_000)).metadata.to_header()
    assert len(fits) <= MESSAGE_BYTES
    with pytest.raises(MessageRefusedError, match="besides 'bytes'") as refused:
        read_image(IMAGE_TOPIC, prediction(bytes="QUJD", note="x" * 33_000)).metadata.to_header()
    assert refused.value.code == "fields_too_large"


@pytest.mark.parametrize("line", [None, "", "{", "[]", '{"imgid": "i"}'])
def test_an_image_in_a_stream_without_its_fields_is_refused(line: str | None) -> None:
    with pytest.raises(MessageRefusedError):
        ImageMetadata.from_header(line)


def test_a_receipt_survives_the_headers() -> None:
    assert Receipt.from_headers(Receipt(5, 6).headers, otherwise=1) == Receipt(5, 6)
    assert Receipt.from_headers(None, otherwise=7) == Receipt(7, 0)


def test_the_subject_of_a_sender_can_be_told_from_that_of_any_stream() -> None:
    who = ("faba", "camera1", "i")
    for subject in (subject_of_image(*who), subject_of_shadow_image(*who), "$MQTT.msgs.fabwafer.faba.camera1.img.i"):
        assert sender_subject(subject) == "fabwafer.faba.camera1.img.i"
    for subject in (subject_of_prediction("device", *who), subject_of_shadow_prediction(*who)):
        assert sender_subject(subject) == "fabwafer.faba.camera1.prediction.i"
    assert sender_subject("something.else") == "something.else"


@given(names, names, names)
def test_a_topic_survives_the_way_to_a_subject_and_back(fab: str, camera: str, imgid: str) -> None:
    topic = Topic(fab, camera, "img", imgid)
    assert Topic.from_subject(topic.subject) == topic
    assert topic.topic == f"fabwafer/{fab}/{camera}/img/{imgid}"


@pytest.mark.parametrize(
    "subject",
    ["fabwafer.a.b.img", "fabwafer.a.b.img.c.d", "other.a.b.img.c", "fabwafer.a//b.c.img.d", "fabwafer.a.b.x.c", ""],
)
def test_a_subject_of_another_shape_is_refused(subject: str) -> None:
    with pytest.raises(MessageRefusedError, match="expected"):
        Topic.from_subject(subject)


@given(st.binary(max_size=200))
def test_no_payload_breaks_the_reading(payload: bytes) -> None:
    with pytest.raises(MessageRefusedError):
        read_image(IMAGE_TOPIC, payload)
