"""Anthropic's official SDK in front of providers that speak another dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest

from tests.books import closed_usage
from tests.e2e.callers import assert_nothing_happened
from tests.e2e.test_anthropic_sdk import HELLO, SAID, WEATHER
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

ASKED: Any = {"model": "gpt-4o", "max_tokens": 100, "messages": HELLO}
IMAGE: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lGODlh"}}


@pytest.fixture
def sdk(gateway: Gateway, api_key: str, http: httpx2.Client) -> anthropic.Anthropic:
    """In front of OpenAI's models."""
    return anthropic.Anthropic(api_key=api_key, base_url=gateway.url, max_retries=0, http_client=http)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_reply_of_openai_is_a_message_with_its_usage(
    sdk: anthropic.Anthropic, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(Script(cache_read_tokens=7, reasoning_tokens=5))
    if is_stream:
        with sdk.messages.stream(**ASKED, system="Be brief.") as stream:
            reply: anthropic.types.Message = stream.get_final_message()
    else:
        reply = sdk.messages.create(**ASKED, system="Be brief.")
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert (reply.model, reply.stop_reason) == ("gpt-4o", "end_turn")
    assert [getattr(block, "text", "") for block in reply.content] == [SAID]
    assert (row.dialect, row.provider, row.usage_source) == ("anthropic.messages", "openai", "reported")
    assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (row.prompt_tokens - 7, row.completion_tokens)
    assert reply.usage.cache_read_input_tokens == row.cache_read_tokens == 7
    assert entry.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello there"},
    ]


@pytest.mark.parametrize("is_stream", [False, True])
def test_tools_and_their_results_go_both_ways(
    sdk: anthropic.Anthropic, upstream: FakeUpstream, is_stream: bool
) -> None:
    asked: Any = {**ASKED, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    if is_stream:
        with sdk.messages.stream(**asked) as stream:
            message: anthropic.types.Message = stream.get_final_message()
    else:
        message = sdk.messages.create(**asked)
    [call] = message.content
    assert call.type == "tool_use"
    assert (call.name, message.stop_reason) == ("weather", "tool_use")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}, IMAGE]}
    turns: Any = [*HELLO, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    sdk.messages.create(**{**ASKED, "messages": turns})
    sent = upstream.ledger.entries()[1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "user"]
    assert (sent[2]["tool_call_id"], sent[2]["content"]) == (call.id, "sunny")
    assert sent[1]["tool_calls"][0]["id"] == call.id
    assert sent[3]["content"][0]["image_url"]["url"] == "data:image/gif;base64,R0lGODlh"
    closed_usage(2)


def test_what_cannot_be_carried_is_refused_by_name(sdk: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    document: Any = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    with pytest.raises(anthropic.BadRequestError, match="takes no files by their address"):
        sdk.messages.create(**{**ASKED, "messages": [{"role": "user", "content": [document]}]})
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\]\.type"):
        sdk.messages.create(**ASKED, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("model", ["fake-cut-3", "fake-error-event-3"])
def test_a_failure_in_mid_stream_raises_in_the_sdk(sdk: anthropic.Anthropic, model: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as failure, sdk.messages.stream(**{**ASKED, "model": model}) as stream:
        list(stream)
    assert failure.value.type == "api_error"
    [row] = closed_usage()
    assert (row.status, row.outcome) == ("estimated", "upstream_failed")


def test_a_route_falls_back_from_anthropic_to_openai(sdk: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    make_route("smart", ("anthropic", "claude-test"), ("openai", "gpt-4o"))
    upstream.enqueue(Script(status=404, error_message="model: claude-test"))
    reply = sdk.messages.create(**{**ASKED, "model": "smart"})
    assert reply.model == "smart"
    assert [(row.provider, row.outcome) for row in closed_usage(2)] == [
        ("anthropic", "upstream_refused"),
        ("openai", "ok"),
    ]


def test_the_built_in_provider_answers_messages_too(
    start_gateway: Callable[..., Gateway], api_key: str, http: httpx2.Client
) -> None:
    gateway = start_gateway(LLM_PROVIDER="echo")
    sdk = anthropic.Anthropic(api_key=api_key, base_url=gateway.url, max_retries=0, http_client=http)
    with sdk.messages.stream(**{**ASKED, "model": "echo"}) as stream:
        assert stream.get_final_text() == "Echo: hello there"
    [call] = sdk.messages.create(**{**ASKED, "model": "echo"}, tools=[WEATHER]).content
    assert (call.type, getattr(call, "name", "")) == ("tool_use", "weather")
    closed_usage(2)
