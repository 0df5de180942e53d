from __future__ import annotations

import time
from typing import Any

import pytest

from llm.dialects.thinking import (
    read_blocks,
    read_delta_thinking,
    read_details,
    read_reply_thinking,
    thinking_block,
    thinking_detail,
)
from llm.types import Thinking, ThinkingDelta

EVERY = (Thinking("hm", "s"), Thinking("", "s2"), Thinking(data="x"), Thinking("unsigned"))
STRANGE: tuple[Any, ...] = (None, True, 7, -1, 1.5, "", "x", [], {}, ["x"], [[]], [{}], {"a": 1})


def text(text: Any = "hm", **members: Any) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": text, **members}


def encrypted(data: Any = "x", **members: Any) -> dict[str, Any]:
    return {"type": "reasoning.encrypted", "data": data, **members}


def test_blocks_and_details_come_back_as_they_went_out() -> None:
    assert read_blocks(map(thinking_block, EVERY)) == EVERY
    assert read_details(thinking_detail(thinking, index) for index, thinking in enumerate(EVERY)) == EVERY


def test_what_can_be_returned_has_a_signature_or_is_encrypted() -> None:
    assert [thinking.can_return for thinking in EVERY] == [True, True, True, False]


def test_a_signature_is_left_out_where_there_is_none() -> None:
    assert thinking_detail(Thinking("hm"), 3) == {"type": "reasoning.text", "text": "hm", "index": 3}
    assert thinking_block(Thinking("hm")) == {"type": "thinking", "thinking": "hm", "signature": ""}


def test_pieces_of_one_index_are_joined_up_to_the_signature() -> None:
    pieces = [text("a", index=0), text("b", index=0), text("", signature="s", index=0), text("c", index=0)]
    more = [encrypted("x", index=0), encrypted("y", index=0), text("d", index=1), text("e", index=2)]
    assert read_details([*pieces, *more]) == (
        *(Thinking("ab", "s"), Thinking("c"), Thinking(data="x"), Thinking(data="y"), Thinking("d"), Thinking("e")),
    )


def test_details_without_an_index_are_blocks_of_their_own() -> None:
    assert read_details([text("a"), text("b")]) == (Thinking("a"), Thinking("b"))


def test_many_pieces_are_joined_in_no_time() -> None:
    began = time.perf_counter()
    [joined] = read_details([text("x" * 500, index=0)] * 20_000)
    assert len(joined.text) == 10_000_000
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("of_format", "signature"),
    [
        *((None, "s"), ("", "s"), ("unknown", "s"), ("anthropic-claude-v1", "s"), (7, "s")),
        *(("google-gemini-v1", ""), ("openai-responses-v1", "")),
    ],
)
def test_signatures_of_other_providers_are_left_out(of_format: Any, signature: str) -> None:
    assert read_details([text(signature="s", format=of_format)]) == (Thinking("hm", signature),)
    assert read_details([encrypted(format=of_format)]) == ((Thinking(data="x"),) if signature else ())


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_members_say_nothing(strange: Any) -> None:
    kinds = ("reasoning.text", "reasoning.summary", "reasoning.encrypted", "thinking", "redacted_thinking", strange)
    for kind in kinds:
        for name in ("text", "summary", "data", "signature", "thinking", "format", "index"):
            detail = {"type": kind, name: strange}
            for read in (read_details([detail]), read_blocks([detail])):
                assert all(isinstance(each.text + each.signature + each.data, str) for each in read)
            holder = {"reasoning_details": [detail, strange], "reasoning": strange, "reasoning_content": strange}
            read_reply_thinking(holder)
            assert all(type(delta.index) is int for delta in read_delta_thinking(holder))
    assert read_reply_thinking({"reasoning_details": strange}) == ()
    assert read_delta_thinking({"reasoning_details": strange}) == []


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"content": "x"}, ()),
        ({"reasoning_content": None, "reasoning": None, "reasoning_details": None}, ()),
        ({"reasoning_content": "hm"}, (Thinking("hm"),)),
        ({"reasoning": "hm"}, (Thinking("hm"),)),
        ({"reasoning_content": "hm", "reasoning": "hm"}, (Thinking("hm"),)),
        ({"reasoning": "hm", "reasoning_details": [text(signature="s")]}, (Thinking("hm", "s"),)),
        ({"reasoning": "hm", "reasoning_details": [encrypted()]}, (Thinking("hm"), Thinking(data="x"))),
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]}, (Thinking("hm"),)),
    ],
)
def test_what_chat_servers_call_it(message: dict[str, Any], read: tuple[Thinking, ...]) -> None:
    assert read_reply_thinking(message) == read
    assert read_delta_thinking(message) == [ThinkingDelta(0, each.text, each.signature, each.data) for each in read]


def test_pieces_keep_their_index() -> None:
    read = read_delta_thinking({"reasoning_details": [text("a", index=2), text("b", index=-1), text("c", index=True)]})
    assert [delta.index for delta in read] == [2, 0, 0]
