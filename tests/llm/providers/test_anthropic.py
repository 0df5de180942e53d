from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from llm.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.providers.anthropic import AnthropicProvider
from llm.providers.base import BaseLLMProvider, ProviderSettings
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamEnd, TokenCounts, Tool, ToolCallDelta
from tests.fakes import FakeUpstream, Script
from tests.fakes.app import MAX_OUTPUT_TOKENS
from tests.llm.providers.contract import read_stream, said_by

KEY = "sk-ant-our-own-upstream-key-0123456789"
ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "sk-ant-from-the-environment",
    "ANTHROPIC_AUTH_TOKEN": "token-from-the-environment",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
    "ANTHROPIC_CUSTOM_HEADERS": "x-from-the-environment: 1\nanthropic-version: 1999-01-01",
    "ANTHROPIC_PROFILE": "nobody",
}

# 3 + for each message (4 + its words): see tests/fakes/wire.py.
HELLO = ChatRequest(model="claude-1", messages=(ChatMessage("system", "Be kind"), ChatMessage("user", "Hello there")))


def settings_for(upstream: FakeUpstream, *, api_key: str = KEY, idle_timeout_s: float = 5.0) -> ProviderSettings:
    return ProviderSettings(
        name="anthropic", api_key=api_key, base_url=upstream.anthropic_base_url, idle_timeout_s=idle_timeout_s
    )


@pytest.fixture
async def provider(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AnthropicProvider]:
    """Built in an environment that is set up to mislead it."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    provider = AnthropicProvider(settings_for(upstream))
    yield provider
    await provider.aclose()


def test_it_is_a_provider(provider: AnthropicProvider) -> None:
    assert isinstance(provider, BaseLLMProvider)


async def test_a_whole_reply(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    response = await provider.chat(HELLO)

    entry = upstream.ledger.entries()[0]
    assert response == ChatResponse(
        reply="You said: Hello there",
        model="claude-1",
        usage=TokenCounts(prompt_tokens=entry.prompt_tokens, completion_tokens=entry.completion_tokens),
        finish_reason="stop",
        response_id=entry.response_id,
        service_tier="standard",
    )
    assert entry.completion_tokens == 4


async def test_a_stream(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    items = await read_stream(provider, HELLO)

    entry = upstream.ledger.entries()[0]
    assert items == [
        "You ",
        "said: ",
        "Hello ",
        "there",
        StreamEnd(
            model="claude-1",
            usage=TokenCounts(prompt_tokens=entry.prompt_tokens, completion_tokens=4),
            finish_reason="stop",
            response_id=entry.response_id,
            service_tier="standard",
        ),
    ]


async def test_what_goes_up_is_ours_alone(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    await provider.chat(HELLO)

    entry = upstream.ledger.entries()[0]
    assert entry.path == "/v1/messages"
    assert entry.headers["x-api-key"] == KEY
    assert entry.headers["anthropic-version"] == "2023-06-01"
    assert entry.headers["content-type"] == "application/json"
    assert entry.headers["accept-encoding"] == "identity"
    assert not {"authorization", "x-from-the-environment", "cookie"} & set(entry.headers)
    assert entry.body == {
        "model": "claude-1",
        "max_tokens": MAX_OUTPUT_TOKENS,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}],
        "system": "Be kind",
    }


async def test_a_maximum_of_the_operators_needs_no_question(upstream: FakeUpstream) -> None:
    provider = AnthropicProvider(replace(settings_for(upstream), max_output_tokens=1234))
    await provider.chat(HELLO)
    assert (upstream.ledger.entries()[0].body or {})["max_tokens"] == 1234
    await provider.aclose()


async def test_a_callers_maximum_stays(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    await provider.chat(replace(HELLO, max_tokens=7))
    assert (upstream.ledger.entries()[0].body or {})["max_tokens"] == 7


async def test_a_model_that_is_not_described_gets_the_least(
    provider: AnthropicProvider, upstream: FakeUpstream
) -> None:
    await provider.chat(replace(HELLO, model="undescribed"))
    assert (upstream.ledger.entries()[0].body or {})["max_tokens"] == 4096


async def test_without_a_key_none_is_borrowed(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    provider = AnthropicProvider(settings_for(upstream, api_key=""))

    await provider.chat(HELLO)

    assert upstream.ledger.entries()[0].credential == "none"
    await provider.aclose()


TOOLS = ChatRequest(
    model="claude-1",
    messages=(ChatMessage("user", "Use the tool"),),
    tools=(Tool("look", "", {"type": "object", "properties": {"city": {"type": "string"}}}),),
)


async def test_tool_calls_whole(provider: AnthropicProvider) -> None:
    response = await provider.chat(TOOLS)

    assert response.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("look", '{"city":"sample"}')]


async def test_tool_calls_streamed(provider: AnthropicProvider) -> None:
    items = await read_stream(provider, TOOLS)

    deltas = [item for item in items if isinstance(item, ToolCallDelta)]
    assert (deltas[0].index, deltas[0].name) == (0, "look")
    assert deltas[0].id
    assert "".join(delta.arguments for delta in deltas) == '{"city":"sample"}'
    assert isinstance(items[-1], StreamEnd)
    assert items[-1].finish_reason == "tool_calls"


async def test_cached_tokens_stay_inside_the_prompt(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(cache_read_tokens=1000, cache_write_5m_tokens=200, cache_write_1h_tokens=30))

    whole = await provider.chat(HELLO)
    *_, end = await read_stream(provider, HELLO)

    counts = upstream.ledger.entries()[0].counts
    expected = TokenCounts(
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=4,
        cache_read_tokens=1000,
        cache_write_5m_tokens=200,
        cache_write_1h_tokens=30,
    )
    assert whole.usage == expected
    assert isinstance(end, StreamEnd)
    assert end.usage == expected


async def test_usage_that_is_left_out_is_not_zero(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(omits_usage=True))

    whole = await provider.chat(HELLO)
    *_, end = await read_stream(provider, HELLO)

    assert whole.usage is None
    assert isinstance(end, StreamEnd)
    assert end.usage is None


async def test_a_stream_without_its_last_event_has_no_end(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(omits_done=True))

    assert await read_stream(provider, HELLO) == ["You ", "said: ", "Hello ", "there"]


async def test_a_stream_that_is_cut_fails_after_what_came(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(cut_after_events=4))
    items = said_by(provider, HELLO)

    assert await anext(items) == "You "
    with pytest.raises(UpstreamFailed) as failed:
        await anext(items)

    assert failed.value.may_have_worked


@pytest.mark.parametrize(
    ("script", "kind", "status", "may_have_worked"),
    [
        (Script(status=400), UpstreamRejected, 400, False),
        (Script(status=401, echoes_key=True), UpstreamFailed, 502, False),
        (Script(status=402), UpstreamFailed, 502, False),
        (Script(status=413), UpstreamRejected, 413, False),
        (Script(status=429, retry_after_s=7), UpstreamRateLimited, 429, False),
        (Script(status=529), UpstreamFailed, 502, False),
        (Script(hangs_up=True), UpstreamFailed, 502, True),
        (Script(body=b"<html>", content_type="text/html"), UpstreamFailed, 502, True),
        (Script(body=b""), UpstreamFailed, 502, True),
        (Script(truncates_json=True), UpstreamFailed, 502, True),
    ],
)
async def test_failures_become_our_errors(
    provider: AnthropicProvider,
    upstream: FakeUpstream,
    script: Script,
    kind: type[UpstreamError],
    status: int,
    may_have_worked: bool,
) -> None:
    upstream.set_default(script)

    with pytest.raises(UpstreamError) as failed:
        await provider.chat(HELLO)

    error = failed.value
    assert type(error) is kind
    assert error.http_status == status
    assert error.may_have_worked is may_have_worked
    assert error.retry_after_s == (7 if status == 429 else None)
    assert KEY not in str(error)
    assert len(upstream.ledger.entries()) == 1


async def test_an_error_in_mid_stream(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(error_after_events=4))

    with pytest.raises(UpstreamFailed) as failed:
        await read_stream(provider, HELLO)

    assert failed.value.may_have_worked


async def test_an_upstream_that_falls_silent(upstream: FakeUpstream) -> None:
    upstream.set_default(Script(hang_after_events=4))
    provider = AnthropicProvider(settings_for(upstream, idle_timeout_s=0.2))

    with pytest.raises(UpstreamTimeout) as failed:
        await read_stream(provider, HELLO)

    assert failed.value.may_have_worked
    await provider.aclose()


async def test_an_upstream_that_is_not_there() -> None:
    gone = FakeUpstream().start()
    gone.stop()
    provider = AnthropicProvider(settings_for(gone))

    with pytest.raises(UpstreamUnreachable) as failed:
        await provider.chat(HELLO)

    assert not failed.value.may_have_worked
    await provider.aclose()


async def test_what_cannot_be_asked_is_not_sent(provider: AnthropicProvider, upstream: FakeUpstream) -> None:
    with pytest.raises(UpstreamRejected):
        await provider.chat(ChatRequest("claude-1", HELLO.messages, temperature=1.5))

    assert upstream.ledger.entries() == ()


def test_tokens_are_counted_without_asking_anybody(provider: AnthropicProvider) -> None:
    assert provider.count_tokens(HELLO.messages, "claude-1") > 0
