"""What the gateway expects of every provider, whatever stands behind it.

A check takes a provider whose upstream answers as described there, and fails where the gateway could not rely on it.
`test_contract.py` runs all of them against each name in the registry; a provider of your own can be held to them too.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from typing import Literal, NoReturn

import pytest

from llm.dialects.anthropic_messages import request as anthropic_request
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import PassThrough
from llm.dialects.openai_chat import client as openai_chat_client
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.enums import Dialect
from llm.errors import UpstreamError
from llm.providers.base import BaseLLMProvider, Closing, ForwardsRaw, RawCall
from llm.types import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    Heartbeat,
    Reading,
    StreamEnd,
    StreamItem,
    TokenCounts,
    ToolCall,
    ToolCallDelta,
)

Way = Literal["chat", "stream_chat", "forward"]


async def check_whole_reply(provider: BaseLLMProvider, request: ChatRequest) -> ChatResponse:
    """The upstream answers with some text and reports its usage."""
    response = await provider.chat(request)
    assert response.reply
    assert response.model == request.model
    assert response.finish_reason == "stop"
    assert response.tool_calls == ()
    _check_counts(response.usage)
    return response


async def check_stream(provider: BaseLLMProvider, request: ChatRequest) -> list[StreamItem]:
    """The upstream streams what it would have answered whole: the same text, model and figures, and one end."""
    whole = await provider.chat(request)
    items = await read_stream(provider, request)
    *texts, end = items
    assert isinstance(end, StreamEnd)
    assert all(isinstance(text, str) and text for text in texts)
    assert "".join(text for text in texts if isinstance(text, str)) == whole.reply
    assert (end.model, end.usage, end.finish_reason) == (whole.model, whole.usage, whole.finish_reason)
    _check_counts(end.usage)
    return items


async def check_tool_calls(provider: BaseLLMProvider, request: ChatRequest) -> tuple[ToolCall, ...]:
    """The upstream calls a tool. A stream's pieces add up to the calls of the whole reply, but for their ids."""
    whole = await provider.chat(request)
    *pieces, end = await read_stream(provider, request)
    assert isinstance(end, StreamEnd)
    assert whole.tool_calls
    assert all(call.id for call in whole.tool_calls)
    assert whole.finish_reason == end.finish_reason == "tool_calls"
    assert whole.usage == end.usage
    streamed = _assembled([piece for piece in pieces if isinstance(piece, ToolCallDelta)])
    assert [(call.name, call.arguments) for call in streamed] == [
        (call.name, call.arguments) for call in whole.tool_calls
    ]
    assert all(call.id for call in streamed)
    return whole.tool_calls


def check_counting(provider: BaseLLMProvider, monkeypatch: pytest.MonkeyPatch, *, model: str) -> None:
    """`count_tokens` is never negative, grows with what it counts, and asks nobody."""
    for name in ("connect", "connect_ex", "send", "sendall"):
        monkeypatch.setattr(socket.socket, name, _refuse)
    hello, more = ChatMessage("user", "Hello"), ChatMessage("user", "Hello there, how are you today?")
    answer = ChatMessage("assistant", tool_calls=(ToolCall("call_1", "look_up", '{"city":"Lisbon"}'),))
    growing = [(), (hello,), (more,), (more, answer), (ChatMessage("system", "Be kind."), more, answer, hello)]
    counts = [provider.count_tokens(messages, model) for messages in growing]
    assert all(type(count) is int for count in counts)
    assert counts[0] >= 0
    assert counts == sorted(counts)
    assert counts[1] > 0
    assert provider.count_tokens((ChatMessage("user", "\ud800\x00 \N{GRINNING FACE} 你好"),), model) > 0


async def failure_of(provider: BaseLLMProvider, request: ChatRequest, *, way: Way) -> UpstreamError:
    """The error that the call ends in. Skips the test where the provider has no such way."""
    call: Awaitable[object]
    if way == "chat":
        call = provider.chat(request)
    elif way == "stream_chat":
        call = read_stream(provider, request)
    elif isinstance(provider, ForwardsRaw):
        call = read_raw(provider, request)
    else:
        pytest.skip("it forwards nothing")
    with pytest.raises(UpstreamError) as failed:
        await call
    return failed.value


async def read_raw(provider: ForwardsRaw, request: ChatRequest) -> bytes:
    """What comes through where bytes are passed on as they are, asked for as callers of its dialect do."""
    wire: PassThrough
    if Dialect.OPENAI_CHAT in provider.dialects:
        wire, body = OPENAI_CHAT, openai_chat_client.request_body(request, is_stream=False)
    else:
        assert Dialect.ANTHROPIC_MESSAGES in provider.dialects
        wire, body = ANTHROPIC_MESSAGES, anthropic_request.request_body(request, is_stream=False)
    raw = RawCall(wire.dialect, wire.path, body, is_stream=False, headers={})
    async with aclosing(await provider.forward(raw)) as reply:
        return b"".join([piece async for piece in reply])


async def check_cut_stream(provider: BaseLLMProvider, request: ChatRequest) -> None:
    """The upstream ends its stream without saying that this was all: so no StreamEnd may say it."""
    items: list[StreamItem] = []
    failure: UpstreamError | None = None
    try:
        async for item in said_by(provider, request):
            items.append(item)  # noqa: PERF401  # what came before a failure counts too
    except UpstreamError as error:
        failure = error
    assert not [item for item in items if isinstance(item, StreamEnd)]
    assert failure is None or failure.may_have_worked


def check_secret_is_kept(error: UpstreamError, secret: str) -> None:
    """Nothing that a caller or a log could get from the error holds our key."""
    told = (str(error), repr(error), error.message, error.code, error.param)
    assert not [text for text in told if text is not None and secret in text]


async def said_by(provider: BaseLLMProvider, request: ChatRequest) -> AsyncGenerator[StreamItem, None]:
    """What a stream says, without its signs of life."""
    async with Closing(provider.stream_chat(request)) as items:
        async for item in items:
            if not isinstance(item, Heartbeat | Reading):
                yield item


async def read_stream(provider: BaseLLMProvider, request: ChatRequest) -> list[StreamItem]:
    return [item async for item in said_by(provider, request)]


async def leave_after_first_item(provider: BaseLLMProvider, request: ChatRequest) -> StreamItem:
    """As a caller who hangs up while the answer comes."""
    async with aclosing(said_by(provider, request)) as stream:
        return await anext(stream)


def _check_counts(usage: TokenCounts | None) -> None:
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


def _assembled(deltas: Sequence[ToolCallDelta]) -> list[ToolCall]:
    calls: dict[int, ToolCall] = {}
    for delta in deltas:
        call = calls.get(delta.index, ToolCall("", "", ""))
        calls[delta.index] = ToolCall(call.id + delta.id, call.name + delta.name, call.arguments + delta.arguments)
    assert sorted(calls) == list(range(len(calls)))
    return [calls[index] for index in sorted(calls)]


def _refuse(*_: object) -> NoReturn:
    raise AssertionError("count_tokens must not use the network")
