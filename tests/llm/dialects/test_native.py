from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.base import ParsedRequest, Translatable
from llm.dialects.native import NATIVE
from llm.enums import Dialect
from llm.errors import GatewayError, InvalidKey, InvalidRequest, QuotaExceeded, RateLimited, UpstreamFailed
from llm.types import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    StreamEnd,
    ThinkingDelta,
    TokenCounts,
    ToolCall,
    ToolCallDelta,
)

USAGE = TokenCounts(prompt_tokens=42, completion_tokens=128)
RESPONSE = ChatResponse(reply="Hi", model="gpt-4o", usage=USAGE)


def parse(**fields: Any) -> ParsedRequest:
    return NATIVE.parse(orjson.dumps({"messages": [{"role": "user", "content": "Hello"}], **fields}))


def test_a_request_needs_messages_alone() -> None:
    request = parse()

    assert (request.dialect, request.model, request.is_stream) == (Dialect.NATIVE, "", False)
    assert NATIVE.to_chat(request, upstream_model="m") == ChatRequest("m", (ChatMessage("user", "Hello"),))
    assert NATIVE.prompt_text(request) == "Hello"
    with pytest.raises(InvalidRequest) as refused:
        NATIVE.parse(b'{"message":"Hello"}')
    assert refused.value.param == "messages"


def test_a_request_takes_the_fields_of_a_chat_completion() -> None:
    chat = NATIVE.to_chat(parse(model="x", max_tokens=9, temperature=0.5), upstream_model="m")

    assert (chat.max_tokens, chat.temperature) == (9, 0.5)


@pytest.mark.slow
def test_a_whole_reply_is_the_one_of_the_seed_document() -> None:
    wire: Translatable = NATIVE

    body = wire.render_whole(RESPONSE, parse(), request_id="r1", created=1)

    assert body == (
        b'{"reply":"Hi","model":"gpt-4o","usage":{"prompt_tokens":42,"completion_tokens":128,"total_tokens":170}}'
    )


def test_tool_calls_come_with_the_reply() -> None:
    response = ChatResponse(reply="", model="m", usage=USAGE, tool_calls=(ToolCall("c1", "f", "{}"),))

    reply = orjson.loads(NATIVE.render_whole(response, parse(), request_id="r1", created=1))

    assert reply["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_the_cost_stands_in_the_usage() -> None:
    body = NATIVE.render_whole(RESPONSE, parse(), request_id="r1", created=1)

    assert orjson.loads(NATIVE.with_cost(body, "0.0000325"))["usage"]["cost"] == 0.0000325


def test_a_stream_is_deltas_and_then_model_and_usage() -> None:
    writing = NATIVE.stream_writer(parse(stream=True), model="m", request_id="r1", created=1)

    assert writing.start() == b""
    assert writing.item("Hi\n") == b'data: {"delta":"Hi\\n"}\n\n'
    assert writing.item(ToolCallDelta(0, id="c1", name="f")) == (
        b'data: {"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}\n\n'
    )
    assert writing.item(ThinkingDelta(0, "hm")) == b""
    assert writing.item(StreamEnd("m")) == b""
    assert writing.finish(RESPONSE, cost="0.5") == (
        b'data: {"model":"gpt-4o","usage":{"cost": 0.5, "prompt_tokens":42,"completion_tokens":128,"total_tokens":170}}'
        b"\n\n"
    )


@pytest.mark.parametrize(
    ("error", "status", "body", "headers"),
    [
        (InvalidRequest("m", param="x"), 400, b'{"error":{"code":"invalid_request","message":"m"}}', {}),
        (InvalidKey("m"), 401, b'{"error":{"code":"invalid_api_key","message":"m"}}', {}),
        (
            RateLimited("m", retry_after_s=2),
            429,
            b'{"error":{"code":"rate_limit_exceeded","message":"m"}}',
            {"retry-after": "2", "retry-after-ms": "2000"},
        ),
        (
            QuotaExceeded("m"),
            429,
            b'{"error":{"code":"insufficient_quota","message":"m"}}',
            {"x-should-retry": "false"},
        ),
    ],
)
def test_an_error_has_a_code_and_a_message(
    error: GatewayError, status: int, body: bytes, headers: dict[str, str]
) -> None:
    rendered = NATIVE.render_error(error, request_id="r1")

    assert (rendered.status, rendered.body, rendered.headers) == (status, body, headers)


def test_an_error_in_mid_stream_is_one_event() -> None:
    event = NATIVE.render_stream_error(UpstreamFailed("m"), request_id="r1", origin={})

    assert event == b'data: {"error":{"code":"upstream_error","message":"m","status":502}}\n\n'
