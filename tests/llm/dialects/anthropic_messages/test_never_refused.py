"""Whatever a chat or responses caller may send, Claude gets nothing that it would refuse: see `tests.fakes`' rules."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.request import request_body
from llm.dialects.base import Translatable
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.errors import InvalidRequest, UpstreamRejected
from tests.fakes.anthropic_rules import check_rules

BODIES = 400
MODELS = (
    *("claude-3-5-haiku-20241022", "claude-3-7-sonnet-latest", "claude-sonnet-4-20250514", "claude-opus-4-1"),
    *("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-6", "claude-opus-4-6"),
    *("claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5", "claude-opus-5", "claude-fable-5", "claude-sonnet-5-5"),
    *("claude-opus-5-5", "claude-haiku-5-5", "claude-mythos-preview", "claude-test"),
)
EFFORTS = (None, None, "none", "minimal", "low", "medium", "high", "xhigh", "max")
TEXTS = ("Hello", " ", "", "Ends in a blank ", "{", "\n\t")
IDS = ("call_1", "functions.get:0", "a b", "x" * 200, "é")
NAMES = ("get_weather", "mcp.files.read", "n" * 64)
IMAGES = ("https://x/y.png", "http://x/y.png", "data:image/png;base64,AAAA", "data:image/svg+xml;base64,AAAA")
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "object", "properties": {}}, "b": {"anyOf": [{"type": "object"}, {"type": "null"}]}},
}
HINT = {"type": "ephemeral"}


class Writer:
    """Bodies of chat completions; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chat(self) -> dict[str, Any]:
        one_of = self._random.choice
        body = {
            "model": one_of(MODELS),
            "messages": [message for _ in range(self._random.randint(1, 5)) for message in self._turn()],
            "max_tokens": one_of((None, 1, 1024, 4096, 64_000)),
            "temperature": one_of((None, 0, 0.7, 1)),
            "top_p": one_of((None, 0.5, 0.97, 1)),
            "stop": one_of((None, "\n", ["a", " "])),
            "reasoning_effort": one_of(EFFORTS),
            "user": one_of((None, "pat@example.org", "+351 210 000 000", "u")),
            "response_format": one_of((None, {"type": "json_object"}, _schema_format())),
        }
        if self._random.random() < 0.6:
            function = {"name": one_of(NAMES), "parameters": SCHEMA, "strict": one_of((None, True))}
            body["tools"] = [{"type": "function", "function": function, "cache_control": HINT}]
            named = {"type": "function", "function": {"name": function["name"]}}
            body["tool_choice"] = one_of((None, "auto", "none", "required", named))
        return {name: value for name, value in body.items() if value is not None}

    def responses(self) -> dict[str, Any]:
        chat, one_of = self.chat(), self._random.choice
        items: list[Any] = []
        for _ in range(self._random.randint(1, 4)):
            call_id = one_of(IDS)
            call = {"type": "function_call", "call_id": call_id, "name": one_of(NAMES), "arguments": "{}"}
            output = {"type": "function_call_output", "call_id": call_id, "output": one_of(TEXTS)}
            message = {"role": one_of(("user", "assistant", "system", "developer")), "content": one_of(TEXTS)}
            items += one_of(([call, output], [message], [message], [output]))
        renamed = {"max_tokens": "max_output_tokens", "user": "user", "model": "model"}
        body = {renamed.get(name, name): chat[name] for name in (*renamed, "temperature", "top_p") if name in chat}
        effort = {"reasoning": {"effort": chat["reasoning_effort"]}} if "reasoning_effort" in chat else {}
        tools = [{"type": "function", **tool["function"]} for tool in chat.get("tools", ())]
        return {**body, **effort, "input": items, "tools": tools}

    def _turn(self) -> list[dict[str, Any]]:
        one_of = self._random.choice
        call_id = one_of(IDS)
        call = {"id": call_id, "type": "function", "function": {"name": one_of(NAMES), "arguments": one_of(("{}", ""))}}
        called = {"role": "assistant", "content": one_of((None, *TEXTS)), "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call_id, "content": one_of(TEXTS)}
        parts = [
            {"type": "text", "text": one_of(TEXTS), "cache_control": HINT} for _ in range(self._random.randint(1, 3))
        ]
        picture = {"type": "image_url", "image_url": {"url": one_of(IMAGES)}}
        said = {"role": one_of(("user", "user", "assistant", "system", "developer")), "content": one_of(TEXTS)}
        turns: tuple[list[dict[str, Any]], ...] = (
            [said],
            [said],
            [called, result],
            [result],
            [{"role": "user", "content": parts}],
            [{"role": "user", "content": [*parts, picture]}],
        )
        return one_of(turns)


def _schema_format() -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}


def sent_to_claude(wire: Translatable, body: dict[str, Any]) -> dict[str, Any] | None:
    """What goes up; None for a body that is refused in our own words, before anything is sent."""
    try:
        request = wire.parse(orjson.dumps(body))
        chat = wire.to_chat(request, upstream_model=body["model"])
        sent: dict[str, Any] = orjson.loads(request_body(chat, is_stream=False))
    except (InvalidRequest, UpstreamRejected):
        return None
    return sent


@pytest.mark.parametrize(
    ("wire", "kind", "least"),
    [(OPENAI_CHAT, "chat", 100), (OPENAI_RESPONSES, "responses", 100)],
    ids=["chat", "responses"],
)
def test_nothing_goes_up_that_claude_would_refuse(wire: Translatable, kind: str, least: int) -> None:
    writers = [Writer(seed) for seed in range(BODIES)]
    sent = [sent_to_claude(wire, getattr(writer, kind)()) for writer in writers]
    went = [body for body in sent if body is not None]
    assert len(went) > least
    for body in went:
        check_rules(body)
