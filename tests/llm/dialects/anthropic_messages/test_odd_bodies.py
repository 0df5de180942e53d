"""Whatever a body holds where the API has something else: it passes or is refused, and nothing of ours breaks."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.dialects.anthropic_messages.counting import COUNT_TOKENS
from llm.dialects.anthropic_messages.stream import MessagesReader
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.errors import InvalidRequest, UpstreamFailed

pytestmark = pytest.mark.slow

_NAMES = st.sampled_from(
    [
        *(
            "model",
            "max_tokens",
            "messages",
            "role",
            "content",
            "type",
            "text",
            "source",
            "file_id",
            "tools",
            "thinking",
        ),
        *(
            "budget_tokens",
            "system",
            "container",
            "skills",
            "diagnostics",
            "context_management",
            "edits",
            "name",
            "input",
        ),
        *(
            "tool_use_id",
            "input_schema",
            "output_config",
            "format",
            "metadata",
            "stop_sequences",
            "usage",
            "iterations",
        ),
        *("message", "delta", "content_block", "server_tool_use", "stop_reason", "input_tokens", "output_tokens"),
    ]
)
_WORDS = st.sampled_from(
    [
        *("user", "assistant", "text", "tool_result", "tool_use", "image", "document", "base64", "url", "compaction"),
        *("web_search_20250305", "message_start", "message_delta", "content_block_start", "server_tool_use", "message"),
    ]
)
_LEAVES = st.none() | st.booleans() | st.integers(-2, 5000) | st.floats(allow_nan=False, width=16) | _WORDS
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=5), max_leaves=30
)
_OBJECTS = st.dictionaries(_NAMES, _VALUES, max_size=8)


@given(body=_OBJECTS)
def test_a_request(body: dict[str, Any]) -> None:
    raw = orjson.dumps(body)
    with suppress(InvalidRequest):
        request = ANTHROPIC_MESSAGES.parse(raw)
        ANTHROPIC_MESSAGES.extent(request)
        ANTHROPIC_MESSAGES.prompt_text(request)
        lowered = ANTHROPIC_MESSAGES.upstream_body(request, upstream_model="m", max_output_tokens=100)
        assert 0 <= orjson.loads(lowered)["max_tokens"] <= 100
        ANTHROPIC_MESSAGES.to_chat(request, upstream_model="m")


@given(body=_OBJECTS)
def test_a_whole_reply(body: dict[str, Any]) -> None:
    raw = orjson.dumps(body)
    for wire in (ANTHROPIC_MESSAGES, COUNT_TOKENS):
        with suppress(UpstreamFailed):
            wire.read_whole(raw)
            wire.whole_text(raw)
    assert ANTHROPIC_MESSAGES.without_money(raw) == raw


@given(events=st.lists(_OBJECTS, max_size=6))
def test_a_stream(events: list[dict[str, Any]]) -> None:
    following = MessagesReader()
    for event in events:
        following.feed(b"event: x\ndata: " + orjson.dumps(event) + b"\n\n")
    following.reading()
    following.output_text()
    following.finish(cost="0.5")
