from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.usage import read_usage
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.sse import read_event, split_events
from llm.types import (
    ChatResponse,
    FinishReason,
    StreamItem,
    Thinking,
    ThinkingDelta,
    TokenCounts,
    ToolCall,
    ToolCallDelta,
)

REQUEST = ANTHROPIC_MESSAGES.parse(b'{"model":"m","max_tokens":9,"messages":[],"stream":true}')
COUNTS = TokenCounts(
    prompt_tokens=20,
    completion_tokens=5,
    cache_read_tokens=3,
    cache_write_5m_tokens=4,
    cache_write_1h_tokens=6,
    reasoning_tokens=2,
)


def whole(**fields: Any) -> dict[str, Any]:
    response = ChatResponse(**{"reply": "Hi", "model": "m", "usage": COUNTS, **fields})
    body = ANTHROPIC_MESSAGES.render_whole(response, REQUEST, request_id="r1", created=0)
    document: dict[str, Any] = orjson.loads(body)
    return document


def stream(*items: StreamItem, finish_reason: FinishReason = "stop") -> list[dict[str, Any]]:
    writer = ANTHROPIC_MESSAGES.stream_writer(REQUEST, model="m", request_id="r1", created=0)
    response = ChatResponse("", "m", COUNTS, finish_reason)
    sent = writer.start() + b"".join(writer.item(item) for item in items) + writer.finish(response, cost="0.5")
    events = [read_event(raw) for raw in split_events(sent)]
    documents = [orjson.loads(event.data or b"") for event in events]
    assert [event.name.decode() for event in events] == [document["type"] for document in documents]
    return documents


def test_a_whole_reply_is_a_message() -> None:
    reply = whole()
    usage = reply.pop("usage")
    assert reply == {
        "id": "msg_r1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    assert usage["input_tokens"] == 7
    assert read_usage(usage) == (COUNTS, None)


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use"), ("content_filter", "refusal")],
)
def test_why_it_ended(reason: FinishReason, told: str) -> None:
    assert whole(finish_reason=reason)["stop_reason"] == told
    assert stream(finish_reason=reason)[-2]["delta"] == {"stop_reason": told, "stop_sequence": None}


def test_tool_calls_of_a_whole_reply() -> None:
    calls = (ToolCall("c1", "a", '{"x":1}'), ToolCall("", "b", ""), ToolCall("c3", "c", "[oops"))
    assert whole(reply="", tool_calls=calls, finish_reason="tool_calls")["content"] == [
        {"type": "tool_use", "id": "c1", "name": "a", "input": {"x": 1}},
        {"type": "tool_use", "id": "toolu_1", "name": "b", "input": {}},
        {"type": "tool_use", "id": "c3", "name": "c", "input": {"INVALID_JSON": "[oops"}},
    ]


def test_a_stream_has_one_block_at_a_time() -> None:
    start, *middle, last, stop = stream(
        "He",
        "y",
        ToolCallDelta(0, "c1", "a"),
        ToolCallDelta(0, arguments='{"x"'),
        ToolCallDelta(0, arguments=":1}"),
        ToolCallDelta(1, "c2", "b"),
        finish_reason="tool_calls",
    )
    assert start["message"]["content"] == []
    assert [(event["type"].removeprefix("content_block_"), event["index"]) for event in middle] == [
        *(("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)),
        *(("start", 1), ("delta", 1), ("delta", 1), ("stop", 1)),
        *(("start", 2), ("stop", 2)),
    ]
    assert middle[4]["content_block"] == {"type": "tool_use", "id": "c1", "name": "a", "input": {}}
    assert last["usage"].pop("cost") == 0.5
    assert read_usage(last["usage"]) == (COUNTS, None)
    assert stop == {"type": "message_stop"}


def test_thinking_stands_before_the_text() -> None:
    thinking = (Thinking("hm", "s"), Thinking("unsigned"), Thinking(data="x"))
    assert whole(thinking=thinking)["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "thinking", "thinking": "unsigned", "signature": ""},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Hi"},
    ]


def test_a_stream_of_thinking() -> None:
    items = (ThinkingDelta(0, "h"), ThinkingDelta(0, "m"), ThinkingDelta(0, signature="s"), ThinkingDelta(1, data="x"))
    _, *middle, _, _ = stream(*items, ThinkingDelta(2, "a", "t"), ThinkingDelta(3, signature="u"), "Hi")
    assert [(event["index"], event.get("content_block") or event.get("delta") or "stop") for event in middle] == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (0, {"type": "thinking_delta", "thinking": "h"}),
        (0, {"type": "thinking_delta", "thinking": "m"}),
        (0, {"type": "signature_delta", "signature": "s"}),
        (0, "stop"),
        (1, {"type": "redacted_thinking", "data": "x"}),
        (1, "stop"),
        (2, {"type": "thinking", "thinking": "", "signature": ""}),
        (2, {"type": "thinking_delta", "thinking": "a"}),
        (2, {"type": "signature_delta", "signature": "t"}),
        (2, "stop"),
        (3, {"type": "thinking", "thinking": "", "signature": ""}),
        (3, {"type": "signature_delta", "signature": "u"}),
        (3, "stop"),
        (4, {"type": "text", "text": ""}),
        (4, {"type": "text_delta", "text": "Hi"}),
        (4, "stop"),
    ]


def test_thinking_after_a_text_is_a_block_of_its_own() -> None:
    _, *middle, _, _ = stream(ThinkingDelta(0, "a"), "Hi", ThinkingDelta(0, "b"))
    opened = [event["content_block"]["type"] for event in middle if event["type"] == "content_block_start"]
    assert opened == ["thinking", "text", "thinking"]


def test_an_empty_answer_has_no_block() -> None:
    assert [event["type"] for event in stream()] == ["message_start", "message_delta", "message_stop"]
    assert whole(reply="")["content"] == []
