"""A provider that can count the tokens of a prompt is asked; one that can't says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm.enums import Dialect
from llm.errors import UpstreamError
from llm.providers.anthropic import AnthropicProvider
from llm.providers.base import CountsPrompts, ProviderSettings
from llm.providers.echo import EchoProvider
from llm.providers.openai import OpenAIProvider
from llm.types import ChatMessage, ChatRequest, FilePart, ImagePart, TextPart, Tool, ToolCall
from tests.fakes import FakeUpstream, Script
from tests.fakes.wire import TOOL_TOKENS

# 3 + for each message (4 + its words): see tests/fakes/wire.py.
HELLO = ChatRequest("gpt-4o", (ChatMessage("system", "Be kind"), ChatMessage("user", "Hello there")))
EVERYTHING = ChatRequest(
    "gpt-4o",
    (
        ChatMessage(
            "user", (TextPart("See"), ImagePart("https://x/y.png"), FilePart("data:application/pdf;base64,AA"))
        ),
        ChatMessage("assistant", (TextPart("Well."),), tool_calls=(ToolCall("c1", "f", "{}"),)),
        ChatMessage("tool", "42", tool_call_id="c1"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c2", "g", "{}"),)),
        ChatMessage("tool", (TextPart("x"),), tool_call_id="c2"),
    ),
    max_tokens=9,
    temperature=0.5,
    tools=(Tool("f", "d"), Tool("g", is_strict=True)),
    response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    reasoning_effort="low",
)


def openai_at(upstream: FakeUpstream, *dialects: Dialect) -> OpenAIProvider:
    settings = ProviderSettings("openai", "sk-key-of-ours-0123456789", upstream.openai_base_url)
    return OpenAIProvider(replace(settings, dialects=frozenset(dialects)))


async def test_openai_counts_what_it_would_be_sent(upstream: FakeUpstream) -> None:
    provider = openai_at(upstream, Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES)
    assert await provider.count_prompt(replace(HELLO, tools=(Tool("f"),))) == 3 + 4 + 2 + 4 + 2 + TOOL_TOKENS
    await provider.count_prompt(EVERYTHING)
    entry = upstream.ledger.entries()[1]
    assert entry.path == "/v1/responses/input_tokens"
    assert entry.body == {
        "model": "gpt-4o",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "See"},
                    {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
                    {"type": "input_file", "filename": "file.pdf", "file_data": "data:application/pdf;base64,AA"},
                ],
            },
            {"role": "assistant", "content": "Well."},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "x"}]},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": {}, "strict": False, "description": "d"},
            {"type": "function", "name": "g", "parameters": {}, "strict": True},
        ],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    }
    await provider.aclose()


async def test_anthropic_counts_what_it_would_be_sent(upstream: FakeUpstream) -> None:
    provider = AnthropicProvider(
        ProviderSettings("anthropic", "sk-ant-of-ours-0123456789", upstream.anthropic_base_url)
    )
    assert await provider.count_prompt(replace(HELLO, model="claude-x")) == 3 + 4 + 2 + 4 + 2
    await provider.count_prompt(replace(EVERYTHING, model="claude-sonnet-4-6"))
    body = upstream.ledger.entries()[1].body
    assert set(body) == {"model", "messages", "tools", "thinking", "output_config"}
    await provider.aclose()


async def test_a_server_without_responses_is_not_asked(upstream: FakeUpstream) -> None:
    provider = openai_at(upstream, Dialect.OPENAI_CHAT)
    assert await provider.count_prompt(HELLO) is None
    assert not upstream.ledger.entries()
    assert not isinstance(EchoProvider(ProviderSettings("echo")), CountsPrompts)
    await provider.aclose()


async def test_a_server_without_the_endpoint_is_no_failure(upstream: FakeUpstream) -> None:
    provider = openai_at(upstream, Dialect.OPENAI_RESPONSES)
    upstream.enqueue(Script(status=404))
    assert await provider.count_prompt(HELLO) is None
    await provider.aclose()


@pytest.mark.parametrize("script", [Script(status=500), Script(status=429), Script(body=b'{"input_tokens": "nine"}')])
async def test_a_failure_is_never_a_number(upstream: FakeUpstream, script: Any) -> None:
    provider = openai_at(upstream, Dialect.OPENAI_RESPONSES)
    upstream.enqueue(script)
    with pytest.raises(UpstreamError):
        await provider.count_prompt(HELLO)
    await provider.aclose()
