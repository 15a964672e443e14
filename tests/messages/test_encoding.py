"""Base64 of image files is read in one way, by MQTT and by HTTP."""

import base64
import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabwafer.maps.image_file import MAX_BYTES, BadImageError
from fabwafer.messages.bodies import read_image
from fabwafer.messages.encoding import EncodingError, decoded_base64
from fabwafer.messages.refusals import MessageRefusedError
from fabwafer.messages.topics import Topic
from fabwafer_handlers import protocol
from tests.support.model_servers import v1, v2

DATA = bytes(range(256)) + b"\xfb\xff\xfe\x00"
"""All bytes, so that its base64 has all letters, and two '=' at its end."""
PLAIN = base64.b64encode(DATA).decode()


def broken(text: str, line_break: str, length: int = 76) -> str:
    return line_break.join(text[i : i + length] for i in range(0, len(text), length))


FORMS = {
    "plain": PLAIN,
    "lines": broken(PLAIN, "\n"),
    "lines of MIME": broken(PLAIN, "\r\n") + "\r\n",
    "other line breaks": broken(PLAIN, "\u2028\u0085\v\f"),
    "spaces": broken(PLAIN, " \t", 4),
    "no-break space": PLAIN[:9] + "\u00a0" + PLAIN[9:],
    "ideographic space": "\u3000" + PLAIN[:-1] + "\u3000" + PLAIN[-1:],
    "URL-safe": base64.urlsafe_b64encode(DATA).decode(),
    "no padding": PLAIN.rstrip("="),
    "half the padding": PLAIN.removesuffix("="),
    "data URI": "data:image/png;base64," + PLAIN,
    "data URI with a parameter": "DATA:image/jpeg;charset=utf-8;BASE64," + PLAIN,
    "data URI without a type": "data:;base64," + PLAIN,
    "all at once": " data:image/png; base64,\n"
    + broken(base64.urlsafe_b64encode(DATA).decode().rstrip("="), "\u00a0\n"),
}


def by_mqtt(text: str) -> bytes:
    body = {"imgid": "i", "timestamp": 1, "fab": "faba", "camera": "camera1", "bytes": text}
    return read_image(Topic("faba", "camera1", "img", "i"), json.dumps(body).encode()).data


def by_http_v1(text: str) -> bytes:
    (row,) = protocol.parse(json.loads(json.dumps(v1(text)))).rows
    assert not row.error
    return row.image


def by_http_v2(text: str) -> bytes:
    (row,) = protocol.parse(json.loads(json.dumps(v2(text)))).rows
    assert not row.error
    return row.image


@pytest.mark.parametrize("read", [decoded_base64, by_mqtt, by_http_v1, by_http_v2])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bytes_on_every_way(form: str, read: Callable[[str], bytes]) -> None:
    assert read(FORMS[form]) == DATA


REFUSALS = {
    "@@": "got '@' as character 1",
    "QUJD\nQ*JD": "got '*' as character 7",
    "QUJDQU\u00dc=": "got '\u00dc' as character 7",
    "QUJD\x1b[31m": "got '\\x1b' as character 5",
    "QUJD\u200b": "got '\\u200b' as character 5",
    "QUJD\ud800": "got '\\ud800' as character 5",
    "data:image/png;base64,QU%2BJD": "got '%' as character 25",
    "data:image/png,QUJD": "got ':' as character 5",
    "QQ==QQ==": "got '=' before its end, as character 3",
    "data:a=b;base64,QQ==QQ==": "got '=' before its end, as character 19",
    "QUJDR": "got 5 letters",
    "QUI==": "got 2 '=' from character 4 on where 1 complete it",
    "QUJD====": "got 4 '=' from character 5 on where 0 complete it",
    "QUJD=": "got 1 '=' from character 5 on where 0 complete it",
    "=": "got 1 '=' from character 1 on where 0 complete it",
}


@pytest.mark.parametrize("text", REFUSALS, ids=ascii)
def test_anything_else_is_refused_with_what_came_and_where(text: str) -> None:
    sentence = f"expected base64 of an image file, {REFUSALS[text]}"
    with pytest.raises(EncodingError, match=re.escape(sentence)):
        decoded_base64(text)
    with pytest.raises(MessageRefusedError, match=re.escape(f"field 'bytes': {sentence}")):
        by_mqtt(text)
    for body in (v1(text), v2(text)):
        (row,) = protocol.parse(body).rows
        assert sentence in row.error


@given(st.binary(min_size=1, max_size=100), st.data())
def test_white_space_anywhere_changes_nothing(data: bytes, draw: st.DataObject) -> None:
    text = base64.b64encode(data).decode()
    for _ in range(3):
        place = draw.draw(st.integers(0, len(text)))
        text = text[:place] + draw.draw(st.sampled_from(["\n", "\u00a0", "\u3000", "\x1c", " "])) + text[place:]
    assert decoded_base64(text) == data


@given(st.text(max_size=50) | st.text("AQgw-_+/= \n", max_size=20))
def test_whatever_the_text_the_answer_is_bytes_or_a_sentence(text: str) -> None:
    sentence = "expected base64 of an image file, got "
    try:
        decoded_base64(text)
    except EncodingError as error:
        sentence = str(error)
    assert sentence.startswith("expected base64 of an image file, got ")


def test_more_than_an_image_may_have_is_refused_before_it_is_decoded() -> None:
    text = base64.b64encode(bytes(MAX_BYTES)).decode()
    assert decoded_base64(broken(text, "\r\n")) == bytes(MAX_BYTES)
    for longer in (text + "AAAA", "data:image/png;base64," + text + "AAAA", broken("A" * len(text) + "*", "\n")):
        with pytest.raises(BadImageError, match=f"at most {MAX_BYTES} bytes, got about ") as refused:
            decoded_base64(longer)
        assert refused.value.code == "too_large"
