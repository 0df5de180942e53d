from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.dialects.json_text import find_member, with_usage_cost, without_member


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"usage":{"a":1}}', b'{"usage":{"cost": 0.5, "a":1}}'),
        (b'{\n  "usage": {\n    "a": 1\n  }\n}', b'{\n  "usage": {"cost": 0.5, \n    "a": 1\n  }\n}'),
        (b'{"usage":{}}', b'{"usage":{"cost": 0.5}}'),
        (b'{"usage" : { } }', b'{"usage" : {"cost": 0.5 } }'),
        (b'{"x":"\\"usage\\": {","usage":{"a":1}}', b'{"x":"\\"usage\\": {","usage":{"cost": 0.5, "a":1}}'),
        (b'{"x":{"usage":{"b":2}},"usage":{"a":1}}', b'{"x":{"usage":{"b":2}},"usage":{"cost": 0.5, "a":1}}'),
        (b'{"usage":{"a":1},"x":[{"usage":{"b":2}}]}', b'{"usage":{"cost": 0.5, "a":1},"x":[{"usage":{"b":2}}]}'),
        (b'{"usage":{"cost":0.9,"a":1}}', b'{"usage":{"cost":0.5,"a":1}}'),
        (b'{"usage":{"a":{"cost":7},"cost" : null}}', b'{"usage":{"a":{"cost":7},"cost" : 0.5}}'),
        (b'data: {"choices":[],"usage":{"a":1}}\n\n', b'data: {"choices":[],"usage":{"cost": 0.5, "a":1}}\n\n'),
    ],
)
def test_the_cost_is_put_into_the_outermost_usage(text: bytes, expected: bytes) -> None:
    assert with_usage_cost(text, "0.5") == expected


@pytest.mark.parametrize(
    "text",
    [
        b'{"usage":null}',
        b'{"usage":3}',
        b'{"a":{"usage":{"b":1}}}',
        b'{"a":"usage"}',
        b'{"a":{"usage":{}},"b":{"usage":{}},"usage":null}',
        b"",
        b"garbage",
        b'[{"usage":{}}]',
    ],
)
def test_without_a_usage_object_the_text_stays(text: bytes) -> None:
    assert with_usage_cost(text, "0.5") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":1,"usage":null}', b'{"a":1}'),
        (b'{"usage":null,"a":1}', b'{"a":1}'),
        (b'{"a":1, "usage" : null , "b":2}', b'{"a":1 , "b":2}'),
        (b'{"usage":null}', b"{}"),
        (b'{"a":{"usage":null},"b":"\\"usage\\":null"}', b'{"a":{"usage":null},"b":"\\"usage\\":null"}'),
        (b'{"a":{"usage":null},"usage":null}', b'{"a":{"usage":null}}'),
    ],
)
def test_a_member_is_taken_out_with_its_comma(text: bytes, expected: bytes) -> None:
    assert without_member(text, b"usage") == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "x", "}"]), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["usage", "a", "b", '"', "{"]), VALUES))
def test_a_member_is_found_wherever_it_stands(value: dict[str, object]) -> None:
    text = orjson.dumps(value)
    member = find_member(text, b"usage")

    if "usage" not in value:
        assert member is None
        assert without_member(text, b"usage") == text
        return
    assert member is not None
    assert orjson.loads(text[member.value : member.end]) == value["usage"]
    assert orjson.loads(without_member(text, b"usage")) == {k: v for k, v in value.items() if k != "usage"}
