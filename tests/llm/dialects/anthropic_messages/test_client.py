from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.client import MessageCollector, read_reply
from llm.errors import UpstreamFailed
from llm.types import (
    ChatResponse,
    Heartbeat,
    Reading,
    StreamEnd,
    StreamItem,
    Thinking,
    ThinkingDelta,
    TokenCounts,
    ToolCall,
    ToolCallDelta,
)

MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1"}
USAGE = {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 5, "service_tier": "standard"}
COUNTS = TokenCounts(prompt_tokens=14, completion_tokens=5, cache_read_tokens=4)


def read(**fields: Any) -> ChatResponse:
    return read_reply(orjson.dumps({**MESSAGE, "content": [], "stop_reason": "end_turn", "usage": USAGE, **fields}))


def test_a_reply_of_text_and_tools() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Let me "},
        {"type": "text", "text": "look."},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"at": 1.0}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
        {"type": "a_new_kind"},
    ]

    assert read(content=content, stop_reason="tool_use") == ChatResponse(
        reply="Let me look.",
        model="claude-1",
        usage=COUNTS,
        finish_reason="tool_calls",
        tool_calls=(ToolCall("t1", "f", '{"at":1.0}'), ToolCall("t2", "g", "{}")),
        response_id="msg_1",
        service_tier="standard",
        thinking=(Thinking("hm", "s"), Thinking(data="x")),
    )


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("a_new_reason", "stop"),
        (None, "stop"),
    ],
)
def test_why_a_reply_ended(stop_reason: str | None, finish_reason: str) -> None:
    assert read(stop_reason=stop_reason).finish_reason == finish_reason


def test_a_reply_without_usage_is_no_reply_of_zero_tokens() -> None:
    assert read(usage=None).usage is None


def test_absurd_usage_is_an_impossible_count() -> None:
    assert read(usage={"input_tokens": -5, "output_tokens": 5}).usage == TokenCounts(prompt_tokens=-1)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"content":"x"}', b'{"type":"error","error":{}}'])
def test_garbage_is_no_reply(body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        read_reply(body)

    assert failed.value.may_have_worked


def follow(*events: dict[str, Any]) -> tuple[list[StreamItem], MessageCollector]:
    """Without what was reported on the way."""
    collector = MessageCollector()
    items = [item for event in events for item in collector.feed(orjson.dumps(event))]
    return [item for item in items if not isinstance(item, Reading)], collector


START = {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**USAGE, "output_tokens": 1}}}
STOP = {"type": "message_stop"}


def opening(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def closing(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ending(reason: str, **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


def test_a_stream_of_text() -> None:
    items, collector = follow(
        START,
        {"type": "ping"},
        opening(0, {"type": "thinking", "thinking": ""}),
        piece(0, "thinking_delta", thinking="hm"),
        piece(0, "signature_delta", signature="s"),
        closing(0),
        opening(1, {"type": "text", "text": ""}),
        piece(1, "text_delta", text="Hel"),
        piece(1, "text_delta", text=""),
        piece(1, "text_delta", text="lo"),
        closing(1),
        ending("end_turn", output_tokens=5),
        STOP,
    )

    assert items == [Heartbeat.PING, ThinkingDelta(0, "hm"), ThinkingDelta(0, signature="s"), "Hel", "lo"]
    assert collector.is_done
    assert collector.end() == StreamEnd("claude-1", COUNTS, "stop", "msg_1", "standard")


def test_a_stream_of_tool_calls() -> None:
    items, collector = follow(
        START,
        opening(0, {"type": "text", "text": "Look:"}),
        closing(0),
        opening(1, {"type": "tool_use", "id": "t1", "name": "f", "input": {}}),
        piece(1, "input_json_delta", partial_json=""),
        piece(1, "input_json_delta", partial_json='{"at":'),
        piece(1, "input_json_delta", partial_json="1}"),
        closing(1),
        opening(2, {"type": "tool_use", "id": "t2", "name": "g", "input": {}}),
        closing(2),
        opening(3, {"type": "tool_use", "id": "t3", "name": "h", "input": {"a": 1}}),
        closing(3),
        ending("tool_use", output_tokens=5),
        STOP,
    )

    assert items == [
        "Look:",
        ToolCallDelta(0, id="t1", name="f"),
        ToolCallDelta(0, arguments='{"at":'),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, id="t2", name="g"),
        ToolCallDelta(1, arguments="{}"),
        ToolCallDelta(2, id="t3", name="h"),
        ToolCallDelta(2, arguments='{"a":1}'),
    ]
    assert collector.end().finish_reason == "tool_calls"


def test_the_last_running_total_counts() -> None:
    _, collector = follow(START, ending("end_turn", output_tokens=3), ending("end_turn", output_tokens=5), STOP)

    assert collector.end().usage == COUNTS


def test_a_stream_without_its_last_event_is_not_done() -> None:
    _, collector = follow(START, ending("end_turn", output_tokens=5))

    assert not collector.is_done


def test_a_stream_without_usage_says_so() -> None:
    _, collector = follow({"type": "message_start", "message": MESSAGE}, STOP)

    assert collector.end().usage is None


def test_events_of_a_new_kind_are_ignored() -> None:
    items, _ = follow({"type": "news"}, opening(0, {"type": "server_tool_use"}), piece(0, "news"), closing(0))

    assert items == []


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"error","error":{"type":"overloaded_error","message":"sk-secret"}}',
        b"[DONE]",
        b"[]",
        b'{"type":"message_start"}',
        b'{"type":"content_block_delta","index":0,"delta":7}',
    ],
)
def test_an_error_or_garbage_ends_the_stream(data: bytes) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        MessageCollector().feed(data)

    assert failed.value.may_have_worked
    assert "sk-secret" not in failed.value.message


def test_a_stream_of_thinking_that_is_withheld_or_redacted() -> None:
    items, _ = follow(
        START,
        opening(0, {"type": "thinking", "thinking": "", "signature": ""}),
        piece(0, "thinking_delta", thinking=""),
        piece(0, "signature_delta", signature="s"),
        closing(0),
        opening(1, {"type": "redacted_thinking", "data": "x"}),
        closing(1),
        opening(2, {"type": "thinking", "thinking": "all", "signature": "at once"}),
        piece(3, "thinking_delta", thinking="of no block"),
        piece(2, "thinking_delta", thinking=None),
        piece(2, "signature_delta"),
        closing(2),
    )

    assert items == [
        ThinkingDelta(0, signature="s"),
        ThinkingDelta(1, data="x"),
        ThinkingDelta(2, "all", "at once"),
    ]


def test_what_was_reported_is_known_before_the_end() -> None:
    """The prompt's tokens with the start, running totals, and the whole call's with the reason for its end."""
    collector = MessageCollector()

    def reading_after(event: dict[str, Any]) -> Reading:
        [reading] = collector.feed(orjson.dumps(event))
        assert isinstance(reading, Reading)
        return reading

    start = reading_after(START)
    assert (start.counts, start.is_input_final, start.is_final) == (replace(COUNTS, completion_tokens=1), True, False)
    assert (start.model, start.response_id, start.service.service_tier) == ("claude-1", "msg_1", "standard")
    running = reading_after({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}})
    assert (running.counts, running.is_final) == (replace(COUNTS, completion_tokens=3), False)
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
    assert (reading_after(last).counts, reading_after(last).is_final) == (replace(COUNTS, completion_tokens=5), True)
