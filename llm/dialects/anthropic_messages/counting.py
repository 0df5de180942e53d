"""Anthropic's `POST /v1/messages/count_tokens`: how many tokens a prompt has, free of charge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from llm.dialects.anthropic_messages.request import request_body
from llm.dialects.anthropic_messages.wire import AnthropicMessages
from llm.dialects.base import Extent, ParsedRequest
from llm.dialects.reply_fields import loaded_reply
from llm.dialects.usage_figures import whole_number
from llm.errors import UpstreamFailed
from llm.types import ChatRequest, ChatResponse, Reading, TokenCounts

PATH = "/v1/messages/count_tokens"
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""All other fields of a message are refused there."""


class CountTokens(AnthropicMessages):
    """Its `PassThrough` wire format. The counted tokens aren't usage: the books get a call of zero tokens."""

    path = PATH

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        request = super().parse(raw, body)
        return replace(request, is_stream=False, wants_stream_usage=False, tool_meters=(), is_count=True)

    def extent(self, request: ParsedRequest) -> Extent:
        return Extent(0)

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        read_count(loaded_reply(body, reply))
        return Reading(counts=TokenCounts(), is_final=True, reports_tools=True)

    def with_cost(self, body: bytes, cost: str) -> bytes:
        return body

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        return ""

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        """response.usage: the count, of the provider's or our own."""
        return orjson.dumps({"input_tokens": (response.usage or TokenCounts()).prompt_tokens})


COUNT_TOKENS = CountTokens()


def count_body(request: ChatRequest) -> bytes:
    """The prompt of a translated request, to be counted. Raises UpstreamRejected as `request_body`."""
    body = orjson.loads(request_body(request, is_stream=False))
    return orjson.dumps({name: body[name] for name in _COUNTED if name in body})


def read_count(reply: Any) -> int:
    """Raises UpstreamFailed if it isn't a number of tokens."""
    if isinstance(reply, dict) and (tokens := whole_number(reply.get("input_tokens"))) is not None:
        return tokens
    raise UpstreamFailed("The upstream sent a reply that is not a number of tokens.", may_have_worked=True)
