"""A refusal names the field that the caller has sent, whatever it is called on the way to the provider."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.request import request_body
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import Translatable
from llm.dialects.field_names import rename_field
from llm.dialects.native import NATIVE
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.errors import UpstreamRejected

OPEN: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": True}}}
FINE = {"type": "object", "properties": {}}
CHAT = {"messages": [{"role": "user", "content": "x"}]}
SAID = {"input": "x"}


def function(schema: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "f", "strict": True, "parameters": schema, **fields}


def tool(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **function(schema)}


def refusal_of(wire: Translatable, body: dict[str, Any], *, model: str) -> UpstreamRejected:
    """What the caller gets of what Claude can't do."""
    request = wire.parse(orjson.dumps(body))
    with pytest.raises(UpstreamRejected) as refused:
        request_body(wire.to_chat(request, upstream_model=model), is_stream=False)
    rename_field(refused.value, partial(wire.own_name, request=request))
    return refused.value


@pytest.mark.parametrize(
    ("wire", "body", "param"),
    [
        (OPENAI_CHAT, {**CHAT, "reasoning_effort": "a lot"}, "reasoning_effort"),
        (NATIVE, {**CHAT, "reasoning_effort": "a lot"}, "reasoning_effort"),
        (OPENAI_RESPONSES, {**SAID, "reasoning": {"effort": "a lot"}}, "reasoning.effort"),
        (ANTHROPIC_MESSAGES, {**CHAT, "output_config": {"effort": "a lot"}}, "output_config.effort"),
        (OPENAI_RESPONSES, {**SAID, "temperature": 1.5}, "temperature"),
        (OPENAI_RESPONSES, {"input": [{"role": "assistant", "content": "x"}]}, "input"),
        (OPENAI_CHAT, {"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        (
            OPENAI_CHAT,
            {**CHAT, "tools": [{"type": "function", "function": function(each)} for each in (FINE, FINE, OPEN)]},
            "tools[2].function.parameters.properties.a.additionalProperties",
        ),
        (
            OPENAI_CHAT,
            {**CHAT, "functions": [function(FINE), function(OPEN)]},
            "functions[1].parameters.properties.a.additionalProperties",
        ),
        (
            OPENAI_RESPONSES,
            {**SAID, "tools": [tool(FINE), tool(OPEN)]},
            "tools[1].parameters.properties.a.additionalProperties",
        ),
        (
            OPENAI_RESPONSES,
            {**SAID, "tools": [tool(FINE), {"type": "namespace", "name": "n", "tools": [{**tool(OPEN), "name": "g"}]}]},
            "tools[1].tools[0].parameters.properties.a.additionalProperties",
        ),
        (
            OPENAI_CHAT,
            {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": OPEN}}},
            "response_format.json_schema.schema.properties.a.additionalProperties",
        ),
        (
            OPENAI_RESPONSES,
            {**SAID, "text": {"format": {"type": "json_schema", "name": "n", "schema": OPEN}}},
            "text.format.schema.properties.a.additionalProperties",
        ),
        (
            ANTHROPIC_MESSAGES,
            {**CHAT, "output_config": {"format": {"type": "json_schema", "schema": OPEN}}},
            "output_config.format.schema.properties.a.additionalProperties",
        ),
    ],
)
def test_what_claude_cannot_do_is_named_as_the_caller_has_sent_it(
    wire: Translatable, body: dict[str, Any], param: str
) -> None:
    refused = refusal_of(wire, {"model": "m", "max_tokens": 99, **body}, model="claude-opus-5-5")
    assert refused.param == param
    assert param.removesuffix(".additionalProperties") in refused.message or param in ("input", "messages")


@pytest.mark.parametrize(
    ("wire", "sent", "own"),
    [
        (ANTHROPIC_MESSAGES, "tools[3].function.parameters.type", "tools[3].input_schema.type"),
        (ANTHROPIC_MESSAGES, "tools[3].function.name", "tools[3].name"),
        (ANTHROPIC_MESSAGES, "tools[3].function.parameters_of_mine", "tools[3].parameters_of_mine"),
        (ANTHROPIC_MESSAGES, "messages[3].content[0].image_url", "messages"),
        (ANTHROPIC_MESSAGES, "stop", "stop_sequences"),
        (ANTHROPIC_MESSAGES, "stop_of_mine", "stop_of_mine"),
        (ANTHROPIC_MESSAGES, "max_completion_tokens", "max_tokens"),
        (ANTHROPIC_MESSAGES, "parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
        (OPENAI_RESPONSES, "messages[0].role", "input"),
        (OPENAI_RESPONSES, "max_tokens", "max_output_tokens"),
        (OPENAI_RESPONSES, "tools[9].function.name", "tools[9].name"),
        (OPENAI_CHAT, "messages[0].role", "messages[0].role"),
    ],
)
def test_what_a_chat_server_refuses_is_named_as_the_caller_has_sent_it(wire: Translatable, sent: str, own: str) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [], "input": "x", "tools": [tool(FINE)]}
    request = wire.parse(orjson.dumps(body if wire is not OPENAI_CHAT else {**body, **CHAT}))
    refused = UpstreamRejected(f"Unsupported '{sent}' of 'user' with 'x'.", param=sent)
    rename_field(refused, partial(wire.own_name, request=request))
    assert (refused.param, refused.message) == (own, f"Unsupported '{own}' of 'user' with 'x'.")


def test_a_refusal_without_a_field_stays() -> None:
    refused = UpstreamRejected("'stop' is too long.")
    rename_field(refused, "other.{}".format)
    assert (refused.param, refused.message) == (None, "'stop' is too long.")
