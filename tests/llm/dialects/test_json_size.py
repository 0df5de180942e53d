"""How many values a text can hold."""

from __future__ import annotations

import pytest

from llm.dialects.json_size import MAX_REPLY_VALUES, MAX_VALUES, count_values, is_readable_reply
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
    assert refused.value.message == "The request body has more than 500,000 values."
    assert refused.value.http_status == 400


def test_a_reply_may_have_more() -> None:
    assert is_readable_reply(b"[" + b"1," * (MAX_VALUES * 2) + b"1]")
    assert is_readable_reply(b'["' + b"1," * (MAX_REPLY_VALUES + 1) + b'"]')
    assert not is_readable_reply(b"[" + b"1," * MAX_REPLY_VALUES + b"1]")
