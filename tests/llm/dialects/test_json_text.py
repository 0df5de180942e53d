from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.dialects.json_text import Place, find_member, find_members, replaced, with_usage_cost, without_member


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


@pytest.mark.slow
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


MEMBER_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=4), MEMBER_VALUES, max_size=5), st.sampled_from([0, orjson.OPT_INDENT_2]))
def test_the_values_of_members_are_found_where_they_stand(value: dict[str, object], option: int) -> None:
    text = orjson.dumps(value, option=option)
    for name, place in find_members(text).items():
        assert orjson.loads(text[place.start : place.end]) == value[name]
        assert orjson.loads(replaced(text, {place: b"7"})) == {**value, name: 7}
    plain = {name for name in value if name.isascii() and orjson.dumps(name) == b'"' + name.encode() + b'"'}
    assert find_members(text).keys() == plain


def test_members_beyond_a_number_are_not_looked_for() -> None:
    text = orjson.dumps({str(number): 1 for number in range(201)})
    assert find_members(text) == {}
    assert len(find_members(text, limit=201)) == 201


def test_several_places_change_at_once() -> None:
    changes = {Place(9, 10): b"22", Place(5, 5, '"x": ', ", "): b"0"}
    assert replaced(b"0123456789abc", changes) == b'01234"x": 0, 567822abc'


def test_a_text_without_an_end_is_passed_over_once() -> None:
    # Begun anew at each quote in it, this would take hours.
    assert find_member(b'{"a":"' + b'\\"' * 2_000_000, b"usage") is None
