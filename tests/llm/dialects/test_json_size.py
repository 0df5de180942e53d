"""How many values a text can hold."""

from __future__ import annotations

import pytest

from llm.dialects.json_size import (
    MAX_CHEAP_BYTES,
    MAX_CHEAP_ESCAPES,
    MAX_REPLY_VALUES,
    MAX_VALUES,
    count_if_cheap,
    count_values,
    is_readable_event,
    is_readable_reply,
)
from llm.errors import InvalidRequest


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        (b"{}", 1),
        (b'{"a":1}', 2),
        (b'{"a":[1,2,3]}', 5),
        (b'{"a":"x, y: [z]"}', 5),
        # Beyond a few thousand marks those in texts are not counted.
        (b'{"a":"' + b"x, y: [z] {\\" * 20_000 + b'\\"}', 2),
        (b'{"a":[' + b"1," * 20_000 + b"1]}", 20_003),
    ],
)
def test_values_are_counted_from_above(raw: bytes, values: int) -> None:
    assert count_values(raw) == values


def test_a_body_of_just_the_bound_passes() -> None:
    assert count_values(b'{"a":[' + b"1," * (MAX_VALUES - 3) + b"1]}") == MAX_VALUES


@pytest.mark.parametrize(
    "inner",
    [
        b"[" + b"1," * (MAX_VALUES - 2) + b"1]",
        b'{"a":1' + b',"a":1' * (MAX_VALUES // 2) + b"}",
        b"[" + b'"",' * MAX_VALUES + b'""]',
        # Cut short, or of another kind: refused as too much before anybody looks whether it is JSON.
        b"," * MAX_VALUES,
    ],
    ids=["numbers", "members", "texts", "commas"],
)
def test_more_are_refused(inner: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        count_values(b'{"y":' + inner + b"}")
    assert refused.value.message == "The request body has more than 100,000 values."
    assert refused.value.http_status == 400


def test_a_reply_may_have_more() -> None:
    assert is_readable_reply(b"[" + b"1," * (MAX_VALUES * 2) + b"1]")
    assert is_readable_reply(b'["' + b"1," * (MAX_REPLY_VALUES + 1) + b'"]')
    assert not is_readable_reply(b"[" + b"1," * MAX_REPLY_VALUES + b"1]")


def in_text(text: bytes, size: int) -> bytes:
    return b'{"a":"' + text * (size // len(text)) + b'"}'


def in_list(values: bytes, size: int) -> bytes:
    return b'{"a":[' + values * (size // len(values)) + b"1]}"


MB = 1024**2
CHEAP = {
    "empty": b"{}",
    "a long prompt": in_text(b"Once upon a time, ", MAX_CHEAP_BYTES // 50),
    "a picture": in_text(b"abcd/+Z", MAX_CHEAP_BYTES - 100),
    "Chinese": in_text("\u6f22".encode(), MAX_CHEAP_BYTES - 100),
    "source code": in_text(b'    if x[\\"a\\"] and {y: 1, 2}:  # a comment\\n', MB - 100),
    "a conversation": in_list(b'{"role":"user","content":"' + b"a" * 400 + b'"},', 400_000),
}
COSTLY = {
    "anything large": b" " * (MAX_CHEAP_BYTES + 1),
    "numbers": in_list(b"1,", 30_000),
    "long numbers": in_list(b"0.123456789012345,", MB),
    "texts": in_list(b'"a",', 60_000),
    "empty texts": in_list(b'"",', 60_000),
    "lists": in_list(b"[],", 30_000),
    "deep": in_list(b"[" * 100 + b"]" * 100 + b",", 30_000),
    "members": in_list(b'{"a":1},', 60_000),
    "keys": b"{" + b",".join(b'"%d":1' % number for number in range(10_000)) + b"}",
    "escaped keys": b"{" + b",".join(b'"\\u006b%d":1' % number for number in range(10_000)) + b"}",
    "keys of any case": b"{" + b",".join(b'"K%dk":1' % number for number in range(10_000)) + b"}",
    "escaped quotes": in_text(b'\\":', 4 * MAX_CHEAP_ESCAPES),
    "escapes": in_text(b"\\u0041", 8 * MAX_CHEAP_ESCAPES),
    "code beyond a megabyte": in_text(b"x[1], {y}: ", MB + 100_000),
    "no end of a text": b'{"a":"' + b'\\":' * 150_000,
}


@pytest.mark.parametrize("name", list(CHEAP))
def test_what_is_read_in_no_time_is_read_here(name: str) -> None:
    values = count_if_cheap(CHEAP[name])
    assert values is not None
    assert values >= min(count_values(CHEAP[name]), 1)
    assert is_readable_event(CHEAP[name])


@pytest.mark.parametrize("name", list(COSTLY))
def test_what_would_hold_up_others_is_read_apart(name: str) -> None:
    assert count_if_cheap(COSTLY[name]) is None


def test_of_a_stream_a_long_event_of_text_is_readable() -> None:
    assert is_readable_event(in_text(b"a", 10 * MB))
    assert is_readable_event(in_text(b"x[1], {y}: ", 2 * MB))
    assert not is_readable_event(COSTLY["numbers"])
    assert not is_readable_event(in_text(b"x[1], {y}: ", 5 * MB))


def test_a_text_without_an_end_is_passed_over_once() -> None:
    # Begun anew at each quote in it, this would take hours.
    assert count_values(b'{"a":"' + b'\\",' * 1_000_000) == 2
    assert is_readable_reply(b'{"a":"' + b'\\",' * 3_000_000)
