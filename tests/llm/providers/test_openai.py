"""What is learned of a server that speaks chat completions, and what translated requests are sent with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from llm.dialects.base import Server
from llm.dialects.openai_chat.client import request_body
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.errors import UpstreamRejected
from llm.providers.base import ProviderSettings
from llm.providers.openai import OpenAIProvider
from llm.types import ChatMessage, ChatRequest, ImagePart, TextPart, Thinking, ToolCall
from tests.fakes import FakeUpstream, Script

MISSING = Script(
    status=400, error_message="Missing `reasoning_content` field in the assistant message at message index 1."
)
CALL = ToolCall("c1", "get_weather", "{}")
ASKED, RESULT = ChatMessage("user", "Use the tool."), ChatMessage("tool", "Sunny.", tool_call_id="c1")
PNG = ImagePart("data:image/png;base64,AAAA")


def loop(*thinking: Thinking) -> ChatRequest:
    return ChatRequest("deep", (ASKED, ChatMessage("assistant", tool_calls=(CALL,), thinking=thinking), RESULT))


def sent_messages(*messages: ChatMessage, server: Server | None = None) -> list[dict[str, Any]]:
    body = request_body(ChatRequest("m", messages), is_stream=False, server=server or Server())
    sent: list[dict[str, Any]] = orjson.loads(body)["messages"]
    return sent


@pytest.fixture
async def provider(upstream: FakeUpstream) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider(ProviderSettings("openai_compatible", api_key="k", base_url=upstream.openai_base_url))
    yield provider
    await provider.aclose()


async def ask(provider: OpenAIProvider, request: ChatRequest, *, is_stream: bool) -> None:
    if is_stream:
        assert [item async for item in provider.stream_chat(request)]
    else:
        await provider.chat(request)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("request_", "thought"), [(loop(Thinking("I see. "), Thinking("Yes.")), "I see. Yes."), (loop(), "")]
)
async def test_a_server_that_wants_its_thinking_back_gets_it(
    provider: OpenAIProvider, upstream: FakeUpstream, request_: ChatRequest, thought: str, is_stream: bool
) -> None:
    """As DeepSeek does within a tool loop; a caller who hasn't returned it can end its loop all the same."""
    upstream.enqueue(MISSING)
    for _ in range(2):
        await ask(provider, request_, is_stream=is_stream)
    turns = [entry.body["messages"][1] for entry in upstream.ledger.entries()]
    assert [turn.get("reasoning_content") for turn in turns] == [None, thought, thought]
    assert all("reasoning_content" not in entry.body["messages"][0] for entry in upstream.ledger.entries())
    await ask(provider, ChatRequest("another", request_.messages), is_stream=is_stream)
    assert "reasoning_content" not in upstream.ledger.entries()[-1].body["messages"][1]


async def test_a_server_is_learned_from_once(provider: OpenAIProvider, upstream: FakeUpstream) -> None:
    upstream.enqueue(MISSING, MISSING)
    with pytest.raises(UpstreamRejected, match="reasoning_content"):
        await provider.chat(loop(Thinking("I see.")))
    assert len(upstream.ledger.entries()) == 2


async def test_without_a_call_nothing_is_tried_again(provider: OpenAIProvider, upstream: FakeUpstream) -> None:
    upstream.enqueue(MISSING)
    with pytest.raises(UpstreamRejected, match="reasoning_content"):
        await provider.chat(ChatRequest("deep", (ASKED,)))
    assert len(upstream.ledger.entries()) == 1


@pytest.mark.parametrize(
    ("base_url", "stores"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://mine.openai.azure.com/openai/v1", False),
        ("https://api.deepseek.com", False),
    ],
)
async def test_only_openai_is_told_not_to_store_chats(base_url: str, stores: bool) -> None:
    provider = OpenAIProvider(ProviderSettings("openai", api_key="k", base_url=base_url))
    server = provider.server_for("gpt-4o")
    await provider.aclose()
    translated = orjson.loads(request_body(ChatRequest("m", (ASKED,)), is_stream=False, server=server))
    raw = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]})
    allowed = OPENAI_CHAT.parse(raw)
    forbidden = replace(allowed, forbids_storage=True)
    assert OPENAI_CHAT.upstream_body(allowed, upstream_model="m", server=server) == raw
    passed = orjson.loads(OPENAI_CHAT.upstream_body(forbidden, upstream_model="m", server=server))
    assert [body.get("store") for body in (translated, passed)] == ([False, False] if stores else [None, None])


def test_pictures_in_results_follow_all_results_of_the_turn() -> None:
    shown = ChatMessage("tool", (TextPart("One"), PNG, TextPart("two")), tool_call_id="c1")
    other = ChatMessage("tool", "Rainy.", tool_call_id="c2")
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG.url}}]}
    results = [
        {"role": "tool", "content": "One\ntwo", "tool_call_id": "c1"},
        {"role": "tool", "content": "Rainy.", "tool_call_id": "c2"},
    ]
    assert sent_messages(shown, other) == [*results, picture]
    assert sent_messages(shown, other, ASKED)[-2:] == [picture, {"role": "user", "content": "Use the tool."}]
