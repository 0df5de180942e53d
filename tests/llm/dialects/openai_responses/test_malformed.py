"""Whatever stands where something else is expected: a refusal in words, or it passes; never an error of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.errors import InvalidRequest, UpstreamFailed

STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    [],
    {},
    ["x"],
    [[]],
    [{}],
    {"type": ["x"]},
    {"type": {}},
    "message",
)
REQUEST: dict[str, Any] = {
    "model": "m",
    "instructions": "i",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://x", "detail": "low"}]},
        {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "summary": [{"text": "s"}], "encrypted_content": "g"},
        {"type": "reasoning", "summary": [{"text": "s"}], "encrypted_content": "llm-gateway.signature:s"},
        {"type": "message", "role": "assistant", "content": "c"},
    ],
    "tools": [
        {"type": "function", "name": "f", "parameters": {"type": "object"}},
        {"type": "namespace", "tools": [{"type": "custom"}]},
        {"type": "shell", "environment": {"type": "local"}},
    ],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "medium"},
    "reasoning": {"effort": "low"},
    "include": ["x"],
    "max_output_tokens": 5,
    "prompt_cache_options": {"comparison_response_id": None},
    "stream": True,
    "background": False,
}
REPLY: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "m",
    "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "function_call", "name": "a", "arguments": "b"},
        {"type": "shell_call", "environment": {"type": "x"}},
    ],
    "usage": {
        "input_tokens": 1,
        "input_tokens_details": {"cache_write_tokens": 1, "cache_write_tokens_details": {"ttl_12h_tokens": 1}},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "cost": 1,
    },
    "tool_usage": {"web_search": {"num_requests": 1}},
    "error": {"code": "server_error"},
    "service_tier": "default",
}


def variants(document: dict[str, Any]) -> Iterator[Any]:
    """Each with something strange in one place."""
    for path in list(paths(document)):
        for value in STRANGE:
            variant = orjson.loads(orjson.dumps(document))
            place = variant
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value
            yield variant


def paths(value: Any) -> Iterator[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in members:
        yield (step,)
        yield from ((step, *rest) for rest in paths(member))


def test_requests() -> None:
    for body in variants(REQUEST):
        with contextlib.suppress(InvalidRequest):
            request = OPENAI_RESPONSES.parse(orjson.dumps(body))
            OPENAI_RESPONSES.prompt_text(request)
            OPENAI_RESPONSES.extent(request)
            OPENAI_RESPONSES.upstream_body(request, upstream_model="n", max_output_tokens=3)
            OPENAI_RESPONSES.to_chat(request, upstream_model="n")


def test_replies() -> None:
    for body in map(orjson.dumps, variants(REPLY)):
        with contextlib.suppress(UpstreamFailed):
            OPENAI_RESPONSES.read_whole(body)
            OPENAI_RESPONSES.whole_text(body)
        OPENAI_RESPONSES.with_cost(OPENAI_RESPONSES.without_money(body), "0.5")


@pytest.mark.parametrize("kind", ["response.created", "response.completed", "error", "response.output_text.delta"])
def test_events(kind: str) -> None:
    request = OPENAI_RESPONSES.parse(b'{"input":"x","stream":true}')
    document = {"type": kind, "delta": "x", "item": {"type": "message", "name": "n"}, "response": REPLY}
    for event in variants(document):
        reader = OPENAI_RESPONSES.stream_reader(request)
        reader.feed(b"event: x\ndata: " + orjson.dumps(event) + b"\n\n")
        reader.output_text()
        reader.reading()
        reader.finish(cost="0.5")
