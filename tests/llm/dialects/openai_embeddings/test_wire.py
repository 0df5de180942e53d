from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.base import ParsedRequest, PassThrough
from llm.dialects.openai_embeddings.wire import OPENAI_EMBEDDINGS
from llm.errors import InvalidRequest, UpstreamFailed
from llm.types import Reading, TokenCounts


def parse(**fields: Any) -> ParsedRequest:
    return OPENAI_EMBEDDINGS.parse(orjson.dumps({"model": "m", **fields}))


def test_it_is_a_pass_through_format_that_is_never_streamed() -> None:
    wire: PassThrough = OPENAI_EMBEDDINGS
    assert wire.path == "/embeddings"
    assert not parse(input="x", stream=True).is_stream


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ([1, 2, 3], 5),
        ([[1, 2], [3]], 7),
        ([{"type": "image"}], None),
        (["x", [1]], None),
        (7, None),
        ([[1, True]], None),
    ],
)
def test_lists_of_tokens_are_bounded_by_their_number(asked: Any, tokens: int | None) -> None:
    assert OPENAI_EMBEDDINGS.extent(parse(input=asked)) == (tokens, "", "")


@pytest.mark.parametrize("asked", ["x", ["x", "y"], [], None])
def test_texts_are_bounded_by_their_bytes(asked: Any) -> None:
    request = parse(input=asked)
    assert OPENAI_EMBEDDINGS.extent(request).input_tokens == len(request.raw)


def test_the_inputs_are_what_is_counted() -> None:
    assert OPENAI_EMBEDDINGS.prompt_text(parse(input=["a b", "c"])) == "a b\nc"
    assert OPENAI_EMBEDDINGS.prompt_text(parse(input=[1, 2])).split() == ["word", "word"]
    assert OPENAI_EMBEDDINGS.prompt_text(parse(input={"x": 1})) == ""


def test_a_field_in_another_case_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="case-sensitive"):
        parse(Input="x")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"prompt_tokens": 3, "total_tokens": 3}, 3), ({"total_tokens": 4}, 4), ({}, None), (None, None)],
)
def test_usage_is_of_inputs_alone(usage: Any, tokens: int | None) -> None:
    reading = OPENAI_EMBEDDINGS.read_whole(orjson.dumps({"data": [], "model": "m", "usage": usage}))
    counts = None if tokens is None else TokenCounts(prompt_tokens=tokens)
    assert reading == Reading(counts, model="m", is_final=True)


def test_absurd_usage_is_kept_aside() -> None:
    reading = OPENAI_EMBEDDINGS.read_whole(b'{"data":[],"usage":{"prompt_tokens":-1}}')
    assert (reading.counts, reading.absurd_usage) == (None, {"prompt_tokens": -1})


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data":{}}'])
def test_what_has_no_embeddings_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        OPENAI_EMBEDDINGS.read_whole(body)
