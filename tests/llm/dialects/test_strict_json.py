from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm.dialects.json_size import MAX_BRACKETS
from llm.dialects.strict_json import load_object, refuse_duplicate_keys
from llm.errors import InvalidRequest


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "The request body is empty; a JSON object is expected."),
        (b" \n", "The request body is empty; a JSON object is expected."),
        (b"[]", "The request body must be a JSON object."),
        (b'"x"', "The request body must be a JSON object."),
        (b"null", "The request body must be a JSON object."),
        (b'{"a":1', "The request body is not valid JSON: error at line 1, column 7."),
        (b'{"a":1,}', "The request body is not valid JSON: error at line 1, column 7."),
        (b'{"a": NaN}', "The request body contains NaN or Infinity, which JSON does not have."),
        (b'{"a":Infinity}', "The request body contains NaN or Infinity, which JSON does not have."),
        (b'{"a":[-Infinity]}', "The request body contains NaN or Infinity, which JSON does not have."),
        (b'{"a":1e999}', "The request body contains a number that is too large at line 1, column 6."),
        (
            b'{"a":"\\ud800"}',
            "The request body contains a lone surrogate (half a character) at line 1, column 7.",
        ),
        (b'{"a":"\xff"}', "The request body is not valid UTF-8."),
        (b'{"a":"\xed\xa0\x80"}', "The request body is not valid UTF-8."),
        (b'{"a":"\x00"}', "The request body is not valid JSON: error at line 1, column 7."),
        (b'{"n":1,"n":64}', 'The request body repeats the key "n" in one object.'),
        (b'{"n":1,"n" :64}', 'The request body repeats the key "n" in one object.'),
        (b'{"n":1,"\\u006e":64}', 'The request body repeats the key "n" in one object.'),
        (b'{"a":[{"b":{},"b":{}}]}', 'The request body repeats the key "b" in one object.'),
        (b'{"a\\u0022:":1,"b":1,"b":2}', 'The request body repeats the key "b" in one object.'),
        (b'{"x":"\\u0022\\u003a","b":1,"b":2}', 'The request body repeats the key "b" in one object.'),
    ],
)
def test_what_is_wrong_is_named(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        load_object(raw)

    assert refused.value.message == message
    assert refused.value.http_status == 400


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_nesting_is_taken_up_to_128_levels() -> None:
    assert list(load_object(nested(128))) == ["a"]


@pytest.mark.parametrize("raw", [nested(129), nested(1000), nested(40_000), b'{"a":' * 40_000])
def test_deeper_nesting_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="nested deeper than 128 levels"):
        load_object(raw)


def test_a_body_of_brackets_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidRequest, match="more than 50,000 opening brackets"):
        load_object(b'{"a":[' + b",".join([b"[]"] * MAX_BRACKETS) + b"]}")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}),
        (b'{"a":"say \\":\\" twice \\" : \\""}', {"a": 'say ":" twice " : "'}),
        ('{"a":"caf\\u00e9 ü \\ud83d\\ude00"}'.encode(), {"a": "café ü 😀"}),
        (b'{"a":1.0,"b":-0.0,"c":9007199254740993}', {"a": 1.0, "b": -0.0, "c": 9007199254740993}),
        (b'{"a":18446744073709551616}', {"a": 18446744073709551616.0}),
        (b'{"a":{"b":1},"b":1}', {"a": {"b": 1}, "b": 1}),
    ],
)
def test_valid_objects_are_read(raw: bytes, value: dict[str, Any]) -> None:
    assert load_object(raw) == value


class Members(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


TRICKY_TEXT = st.text(st.sampled_from('":\\ \n\u00e9ab{}[],u0223'), max_size=6) | st.text(max_size=4).filter(
    lambda text: "\x00" not in text
)
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TRICKY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TRICKY_TEXT, inner), max_size=4).map(Members),
    max_leaves=8,
)


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """An object with any spacing and any way to write a character, duplicate keys included."""

    def space() -> str:
        return draw(st.sampled_from(["", "", "", " ", "\t", "\n", "\r\n"]))

    def string(text: str) -> str:
        written = json.dumps(text, ensure_ascii=draw(st.booleans()))[1:-1]
        if draw(st.booleans()):
            written = written.replace('\\"', draw(st.sampled_from(["\\u0022", '\\"'])))
            written = written.replace(":", draw(st.sampled_from(["\\u003a", "\\u003A", ":"])))
        return f'"{written}"'

    def write(value: Any) -> str:
        if isinstance(value, Members):
            inner = f"{space()},{space()}".join(f"{string(k)}{space()}:{space()}{write(v)}" for k, v in value)
            return "{" + space() + inner + space() + "}"
        if isinstance(value, list):
            return "[" + ",".join(write(item) for item in value) + "]"
        return string(value) if isinstance(value, str) else json.dumps(value)

    return write(Members(draw(st.lists(st.tuples(TRICKY_TEXT, JSON_VALUE), max_size=5))))


@pytest.mark.slow
@given(json_texts())
@example('{"a":1,"a" :2}')
@example('{"a":"\\u0022:","b":1,"b":2}')
@example('{"a\\\\":1,"a\\\\":2}')
def test_the_count_never_misses_a_duplicate_key(text: str) -> None:
    raw = text.encode()
    message = _message_of(refuse_duplicate_keys, raw)

    assert _message_of(load_object, raw) == message
    if message is None:
        assert load_object(raw) == orjson.loads(raw)


def _message_of(check: Callable[[bytes], object], raw: bytes) -> str | None:
    try:
        check(raw)
    except InvalidRequest as error:
        return error.message
    return None
