from __future__ import annotations

from typing import Any

import orjson
from openai.types.chat import ChatCompletionChunk

from llm.dialects.base import StreamWriter
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.sse import read_event, split_events
from llm.types import ChatResponse, StreamEnd, ThinkingDelta, TokenCounts, ToolCallDelta

RESPONSE = ChatResponse(reply="", model="claude", usage=TokenCounts(prompt_tokens=8, completion_tokens=2))


def writer(**fields: Any) -> StreamWriter:
    raw = orjson.dumps({"messages": [{"role": "user"}], "stream": True, **fields})
    return OPENAI_CHAT.stream_writer(OPENAI_CHAT.parse(raw), model="claude", request_id="r1", created=1700000000)


def chunks(stream: bytes) -> list[ChatCompletionChunk]:
    events = [read_event(event).data or b"" for event in split_events(stream)]
    return [ChatCompletionChunk.model_validate_json(data, strict=True) for data in events if data != b"[DONE]"]


def test_a_translated_stream_has_the_shape_of_openai() -> None:
    writing = writer()

    stream = writing.start() + writing.item("Hel") + writing.item("lo") + writing.item(StreamEnd("claude"))
    stream += writing.finish(RESPONSE, cost="0.5")

    assert stream.endswith(b"}\n\ndata: [DONE]\n\n")
    assert b"usage" not in stream
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks(stream)]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks(stream)] == [None, None, None, "stop"]
    assert {(chunk.id, chunk.model, chunk.created) for chunk in chunks(stream)} == {
        ("chatcmpl-r1", "claude", 1700000000)
    }


def test_who_asks_for_usage_gets_it_in_a_chunk_of_its_own() -> None:
    writing = writer(stream_options={"include_usage": True})

    stream = writing.start() + writing.finish(RESPONSE, cost="0.0000325")

    *before, last = chunks(stream)
    assert all(b'"usage":null}\n\n' in event for event in split_events(stream)[:2])
    assert all(chunk.usage is None for chunk in before)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 10
    assert b'"usage":{"cost": 0.0000325, "prompt_tokens":8,' in stream


def test_tool_calls_come_as_deltas() -> None:
    writing = writer(tools=[{}])
    response = ChatResponse(reply="", model="claude", usage=TokenCounts(), finish_reason="tool_calls")

    stream = writing.item(ToolCallDelta(0, id="c1", name="look")) + writing.item(ToolCallDelta(0, arguments='{"a":'))
    stream += writing.finish(response)

    first, second, last = chunks(stream)
    assert first.choices[0].delta.model_dump(exclude_unset=True) == {
        "tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}]
    }
    assert second.choices[0].delta.model_dump(exclude_unset=True) == {
        "tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]
    }
    assert last.choices[0].finish_reason == "tool_calls"


def test_thinking_comes_as_deltas() -> None:
    writing = writer()
    items = (ThinkingDelta(0, "hm"), ThinkingDelta(0, signature="s"), ThinkingDelta(1, data="x"))

    stream = b"".join(writing.item(item) for item in items)

    assert [chunk.choices[0].delta.model_extra for chunk in chunks(stream)] == [
        {"reasoning_content": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "", "signature": "s", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "index": 1}]},
    ]


def test_a_caller_of_the_old_functions_gets_deltas_of_a_function_call() -> None:
    writing = writer(functions=[{"name": "look"}])
    response = ChatResponse(reply="", model="claude", usage=TokenCounts(), finish_reason="tool_calls")

    stream = writing.item(ToolCallDelta(0, id="c1", name="look")) + writing.item(ToolCallDelta(1, id="c2", name="b"))
    stream += writing.finish(response)

    first, last = chunks(stream)
    assert first.choices[0].delta.model_dump(exclude_unset=True) == {"function_call": {"name": "look", "arguments": ""}}
    assert last.choices[0].finish_reason == "function_call"
