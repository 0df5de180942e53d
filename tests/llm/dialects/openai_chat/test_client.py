from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.openai_chat.client import StreamCollector, message_object, read_reply
from llm.types import ChatMessage, StreamItem, Thinking, ThinkingDelta

DETAIL = {"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}


def whole(**message: Any) -> tuple[Thinking, ...]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi", **message}, "finish_reason": "stop"}
    return read_reply(orjson.dumps({"id": "c", "model": "m", "choices": [choice]})).thinking


def streamed(*deltas: dict[str, Any]) -> list[StreamItem]:
    collector = StreamCollector()
    chunks = [{"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return [item for chunk in chunks for item in collector.feed(orjson.dumps(chunk))]


def test_the_thinking_of_a_whole_reply() -> None:
    assert whole() == ()
    assert whole(reasoning_content="hm") == whole(reasoning="hm") == (Thinking("hm"),)
    assert whole(reasoning="hm", reasoning_details=[DETAIL]) == (Thinking("hm", "s"),)


def test_the_thinking_of_a_stream_goes_before_what_is_said_with_it() -> None:
    items = streamed(
        {"reasoning_content": "h"}, {"reasoning": "m", "content": None}, {"reasoning": "", "content": "Hi"}
    )
    assert items == [ThinkingDelta(0, "h"), ThinkingDelta(0, "m"), "Hi"]
    assert streamed({"reasoning_details": [DETAIL], "content": "Hi"}) == [ThinkingDelta(0, "hm", "s"), "Hi"]


@pytest.mark.parametrize("strange", [None, True, 7, {}, [], ["x"], [[]], [{"type": {}}]])
def test_strange_thinking_is_none(strange: Any) -> None:
    fields = {"reasoning_content": strange, "reasoning": strange, "reasoning_details": strange}
    assert whole(**fields) == ()
    assert streamed(fields) == []


def test_the_thinking_of_the_history_stays_here() -> None:
    said = ChatMessage("assistant", "Hi", thinking=(Thinking("hm", "s"),))
    assert message_object(said) == {"role": "assistant", "content": "Hi"}
