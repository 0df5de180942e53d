"""Every registered provider against the contract, with the fake upstream behind those that call one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.providers.base import BaseLLMProvider
from llm.providers.registry import PROVIDERS, build_provider
from llm.types import ChatMessage, ChatRequest, Tool, ToolCall
from tests.fakes import FakeUpstream, Script
from tests.llm.providers import contract

OFFLINE = {"echo"}
REMOTE = sorted(PROVIDERS.keys() - OFFLINE)

# Like no provider's own keys, so that nothing but knowing it keeps it out of an error.
KEY = "our9own0upstream8key7that6nobody5must4see"

HELLO = ChatRequest("a-model", (ChatMessage("user", "Hello there, how are you?"),))
TALK = ChatRequest(
    "a-model",
    (
        ChatMessage("system", "Answer as a pirate."),
        ChatMessage("user", "Where is Lisbon?"),
        ChatMessage("assistant", "In Portugal, matey."),
        ChatMessage("user", "And Porto?"),
    ),
)
USE_TOOL = ChatRequest(
    "a-model",
    (ChatMessage("user", "Use the tool."),),
    tools=(Tool("look_up", "Looks up a city.", {"type": "object", "properties": {"city": {"type": "string"}}}),),
)
TOOL_RESULT = ChatRequest(
    "a-model",
    (
        *USE_TOOL.messages,
        ChatMessage("assistant", tool_calls=(ToolCall("call_1", "look_up", '{"city":"Lisbon"}'),)),
        ChatMessage("tool", "Sunny, 21 degrees.", tool_call_id="call_1"),
    ),
    tools=USE_TOOL.tools,
)

WHOLE_AND_STREAM = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
WAYS = pytest.mark.parametrize("way", ["chat", "stream_chat", "forward"])


def point_to(upstream: FakeUpstream, settings: Any) -> None:
    settings.OPENAI_API_KEY = settings.ANTHROPIC_API_KEY = settings.LLM_COMPATIBLE_API_KEY = KEY
    settings.LLM_OPENAI_BASE_URL = settings.LLM_BASE_URL = upstream.openai_base_url
    settings.LLM_ANTHROPIC_BASE_URL = upstream.anthropic_base_url
    settings.LLM_CONNECT_TIMEOUT_SECONDS = 2.0
    settings.LLM_IDLE_TIMEOUT_SECONDS = settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = 5.0


async def closed(provider: BaseLLMProvider) -> None:
    if (close := getattr(provider, "aclose", None)) is not None:
        await close()


@pytest.fixture(params=sorted(PROVIDERS))
async def provider(
    request: pytest.FixtureRequest, upstream: FakeUpstream, settings: Any
) -> AsyncIterator[BaseLLMProvider]:
    point_to(upstream, settings)
    provider = build_provider(request.param)
    yield provider
    await closed(provider)


@pytest.fixture(params=REMOTE)
async def remote(
    request: pytest.FixtureRequest, upstream: FakeUpstream, settings: Any
) -> AsyncIterator[BaseLLMProvider]:
    """A provider that calls an upstream."""
    point_to(upstream, settings)
    provider = build_provider(request.param)
    yield provider
    await closed(provider)


@pytest.fixture(params=REMOTE)
async def impatient(
    request: pytest.FixtureRequest, upstream: FakeUpstream, settings: Any
) -> AsyncIterator[BaseLLMProvider]:
    """As `remote`, with a short idle timeout."""
    point_to(upstream, settings)
    settings.LLM_IDLE_TIMEOUT_SECONDS = settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS = 0.2
    provider = build_provider(request.param)
    yield provider
    await closed(provider)


def test_it_has_the_three_methods(provider: BaseLLMProvider) -> None:
    assert isinstance(provider, BaseLLMProvider)


async def test_a_whole_reply(provider: BaseLLMProvider) -> None:
    await contract.check_whole_reply(provider, HELLO)


async def test_a_stream_says_what_the_whole_reply_says(provider: BaseLLMProvider) -> None:
    items = await contract.check_stream(provider, HELLO)
    assert len(items) > 2


def test_tokens_are_counted_without_asking_anybody(provider: BaseLLMProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    contract.check_counting(provider, monkeypatch, model="a-model")


@WHOLE_AND_STREAM
async def test_the_figures_are_the_upstreams(remote: BaseLLMProvider, upstream: FakeUpstream, is_stream: bool) -> None:
    upstream.set_default(Script(cache_read_tokens=1000))
    if is_stream:
        usage = getattr((await contract.read_stream(remote, TALK))[-1], "usage", None)
    else:
        usage = (await remote.chat(TALK)).usage
    [entry] = upstream.ledger.entries()
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens)
    assert usage.cache_read_tokens == 1000


@WHOLE_AND_STREAM
async def test_usage_that_is_not_reported_is_not_zero(
    remote: BaseLLMProvider, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.set_default(Script(omits_usage=True))
    if is_stream:
        assert getattr((await contract.read_stream(remote, HELLO))[-1], "usage", "no end") is None
    else:
        assert (await remote.chat(HELLO)).usage is None


async def test_tool_calls(remote: BaseLLMProvider) -> None:
    [call] = await contract.check_tool_calls(remote, USE_TOOL)
    assert (call.name, call.arguments) == ("look_up", '{"city":"sample"}')


@WHOLE_AND_STREAM
async def test_the_whole_conversation_reaches_the_upstream(
    remote: BaseLLMProvider, upstream: FakeUpstream, is_stream: bool
) -> None:
    if is_stream:
        await contract.read_stream(remote, TALK)
    else:
        await remote.chat(TALK)
    [entry] = upstream.ledger.entries()
    system, *turns = [message.text for message in TALK.messages]
    positions = [entry.raw.find(text.encode()) for text in turns]
    assert entry.raw.count(system.encode()) == 1
    assert -1 not in positions
    assert positions == sorted(positions)
    assert (entry.body["model"], entry.is_stream, entry.credential) == ("a-model", is_stream, KEY)


async def test_a_tools_result_reaches_the_upstream(remote: BaseLLMProvider, upstream: FakeUpstream) -> None:
    await remote.chat(TOOL_RESULT)
    [entry] = upstream.ledger.entries()
    assert entry.raw.count(b"call_1") == 2
    assert b"Sunny, 21 degrees." in entry.raw


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize(
    ("script", "kind", "http_status", "may_have_worked"),
    [
        (Script(status=400), UpstreamRejected, 400, False),
        (Script(status=404), UpstreamRejected, 404, False),
        (Script(status=413), UpstreamRejected, 413, False),
        (Script(status=422), UpstreamRejected, 422, False),
        (Script(status=401), UpstreamFailed, 502, False),
        (Script(status=403), UpstreamFailed, 502, False),
        (Script(status=429, retry_after_s=7), UpstreamRateLimited, 429, False),
        (Script(status=500), UpstreamFailed, 502, True),
        (Script(status=503), UpstreamFailed, 502, False),
        (Script(status=502), UpstreamFailed, 502, True),
        (Script(status=504), UpstreamFailed, 502, True),
        (Script(hangs_up=True), UpstreamFailed, 502, True),
        (Script(cut_after_events=1), UpstreamFailed, 502, True),
        (Script(cut_after_events=1, cut_style="close"), UpstreamFailed, 502, True),
        (Script(body=b"\x00\xff no json {"), UpstreamFailed, 502, True),
    ],
    ids=lambda value: repr(value) if isinstance(value, int) else getattr(value, "__name__", ""),
)
async def test_failures_become_our_errors(
    remote: BaseLLMProvider,
    upstream: FakeUpstream,
    way: contract.Way,
    script: Script,
    kind: type[UpstreamError],
    http_status: int,
    may_have_worked: bool,
) -> None:
    if way != "chat" and script.body is not None:
        pytest.skip("what is no event says nothing: see test_a_stream_that_ends_early_has_no_end")
    upstream.set_default(script)
    error = await contract.failure_of(remote, HELLO, way=way)
    assert (type(error), error.http_status, error.may_have_worked) == (kind, http_status, may_have_worked)
    assert error.upstream_status == (script.status if script.status >= 400 else None)
    assert error.retry_after_s == script.retry_after_s
    assert len(upstream.ledger.wait_for(1)) == 1  # Retrying is the gateway's business.


@pytest.mark.parametrize(
    "script", [Script(omits_done=True), Script(body=b"no event"), Script(body=b"")], ids=["cut", "junk", "empty"]
)
async def test_a_stream_that_ends_early_has_no_end(
    remote: BaseLLMProvider, upstream: FakeUpstream, script: Script
) -> None:
    upstream.set_default(script)
    await contract.check_cut_stream(remote, HELLO)


async def test_a_stream_that_breaks_fails_after_what_came(remote: BaseLLMProvider, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(cut_after_events=5, event_delay_s=0.01))
    stream = contract.said_by(remote, HELLO)
    assert isinstance(await anext(stream), str)
    with pytest.raises(UpstreamFailed) as failed:
        [item async for item in stream]
    assert failed.value.may_have_worked


async def test_an_error_in_mid_stream(remote: BaseLLMProvider, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(error_after_events=4, error_message=f"Your key {KEY} is tired."))
    error = await contract.failure_of(remote, HELLO, way="stream_chat")
    assert (type(error), error.may_have_worked) == (UpstreamFailed, True)
    contract.check_secret_is_kept(error, KEY)


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize(
    "script", [Script(hangs_before_headers=True), Script(hang_after_events=1)], ids=["head", "body"]
)
async def test_an_upstream_that_falls_silent(
    impatient: BaseLLMProvider, upstream: FakeUpstream, way: contract.Way, script: Script
) -> None:
    upstream.set_default(script)
    error = await contract.failure_of(impatient, HELLO, way=way)
    assert (type(error), error.http_status, error.may_have_worked) == (UpstreamTimeout, 504, True)
    [entry] = await asyncio.to_thread(upstream.ledger.wait_for, 1)
    assert entry.has_peer_hung_up


@WAYS
@pytest.mark.parametrize("name", REMOTE)
async def test_an_upstream_that_is_not_there(name: str, settings: Any, way: contract.Way) -> None:
    gone = FakeUpstream().start()
    gone.stop()
    point_to(gone, settings)
    provider = build_provider(name)
    error = await contract.failure_of(provider, HELLO, way=way)
    assert (type(error), error.http_status, error.may_have_worked) == (UpstreamUnreachable, 502, False)
    assert error.is_passing
    await closed(provider)


@WAYS
@pytest.mark.parametrize(
    "script",
    [
        *(Script(status=status, echoes_key=True) for status in (400, 401, 403, 404, 422, 429, 500, 503)),
        Script(status=400, error_code=KEY),
    ],
    ids=lambda script: f"{script.status}{'-code' if script.error_code else ''}",
)
async def test_our_key_is_in_no_error(
    remote: BaseLLMProvider, upstream: FakeUpstream, way: contract.Way, script: Script
) -> None:
    upstream.set_default(script)
    error = await contract.failure_of(remote, HELLO, way=way)
    contract.check_secret_is_kept(error, KEY)


async def test_leaving_a_stream_closes_the_upstreams_connection(
    remote: BaseLLMProvider, upstream: FakeUpstream
) -> None:
    upstream.set_default(Script(chunks=1000, event_delay_s=0.01))
    assert isinstance(await contract.leave_after_first_item(remote, HELLO), str)
    [entry] = await asyncio.to_thread(upstream.ledger.wait_for, 1)
    assert entry.has_peer_hung_up


@WHOLE_AND_STREAM
async def test_a_cancelled_call_closes_the_upstreams_connection(
    remote: BaseLLMProvider, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.set_default(Script(hang_after_events=2))
    work = contract.read_stream(remote, HELLO) if is_stream else remote.chat(HELLO)
    task = asyncio.ensure_future(work)
    await asyncio.to_thread(upstream.ledger.wait_for_open, 1)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [entry] = await asyncio.to_thread(upstream.ledger.wait_for, 1)
    assert entry.has_peer_hung_up
