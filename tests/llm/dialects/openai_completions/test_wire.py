from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.base import ParsedRequest, PassThrough, Server
from llm.dialects.openai_completions.wire import OPENAI_COMPLETIONS
from llm.errors import InvalidRequest, UpstreamFailed
from llm.types import TokenCounts


def parse(**fields: Any) -> ParsedRequest:
    return OPENAI_COMPLETIONS.parse(orjson.dumps({"model": "m", "prompt": "x", **fields}))


def test_it_is_a_pass_through_format() -> None:
    wire: PassThrough = OPENAI_COMPLETIONS
    assert wire.path == "/completions"


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({}, 1),
        ({"prompt": None}, 1),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1], [2]], "best_of": 4, "n": 2}, 8),
        ({"best_of": 0}, 1),
    ],
)
def test_each_prompt_has_its_own_choices(fields: dict[str, Any], choices: int) -> None:
    request = parse(max_tokens=5, **fields)
    assert (request.choices, request.max_output_tokens) == (choices, 5)


@pytest.mark.parametrize(
    ("fields", "is_known"),
    [
        ({}, True),
        ({"prompt": [[1, 2], [3]]}, True),
        ({"prompt": ["a", "b"], "suffix": "c"}, True),
        ({"prompt": [{"type": "image"}]}, False),
        ({"prompt_embeds": "AAAA"}, False),
    ],
)
def test_prompts_are_bounded_by_their_bytes(fields: dict[str, Any], is_known: bool) -> None:
    request = parse(**fields)
    assert OPENAI_COMPLETIONS.extent(request).input_tokens == (len(request.raw) + 256 if is_known else None)


@pytest.mark.parametrize("field", ["max_completion_tokens", "max_tokens"])
def test_a_limit_sets_the_maximum_that_completions_have(field: str) -> None:
    body = OPENAI_COMPLETIONS.upstream_body(parse(), upstream_model="m", max_output_tokens=9, server=Server(field))
    assert orjson.loads(body) == {"model": "m", "prompt": "x", "max_tokens": 9}


def test_prompt_and_suffix_are_what_is_counted() -> None:
    assert OPENAI_COMPLETIONS.prompt_text(parse(prompt=["a", "b"], suffix="c")) == "a\nb\nc"
    assert OPENAI_COMPLETIONS.prompt_text(parse()) == "x"


@pytest.mark.parametrize("fields", [{"Prompt": "x"}, {"Suffix": "x"}, {"stream": "yes"}, {"n": 0}])
def test_a_request_at_fault_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        parse(**fields)


def test_a_chat_is_told_where_it_belongs() -> None:
    with pytest.raises(InvalidRequest, match="POST /v1/chat/completions"):
        OPENAI_COMPLETIONS.parse(b'{"messages":[]}')


def test_an_object_for_a_prompt_names_a_stored_one() -> None:
    assert parse(prompt={"id": "pmpt_1"}).routing_fields == ("prompt",)


def test_replies_and_their_text() -> None:
    usage = b'"usage":{"prompt_tokens":1,"completion_tokens":2}'
    body = b'{"id":"cmpl-1","model":"m","choices":[{"text":"a"},{"text":"b"}],%s}' % usage
    assert OPENAI_COMPLETIONS.whole_text(body) == "ab"
    assert OPENAI_COMPLETIONS.read_whole(body).counts == TokenCounts(1, 2)
    with pytest.raises(UpstreamFailed, match="completion"):
        OPENAI_COMPLETIONS.read_whole(b"{}")
    reader = OPENAI_COMPLETIONS.stream_reader(parse(stream=True))
    reader.feed(b'data: {"id":"cmpl-1","model":"m","choices":[{"text":"Hi","index":0}]}\n\n')
    assert (reader.output_text(), reader.reading().response_id) == ("Hi", "cmpl-1")
