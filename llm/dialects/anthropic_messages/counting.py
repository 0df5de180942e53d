"""Anthropic's `POST /v1/messages/count_tokens`: how many tokens a prompt has, free of charge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from llm.dialects.anthropic_messages.wire import AnthropicMessages
from llm.dialects.base import Extent, ParsedRequest
from llm.dialects.reply_fields import loaded_reply
from llm.errors import UpstreamFailed
from llm.types import ChatResponse, Reading, TokenCounts


class CountTokens(AnthropicMessages):
    """Its `PassThrough` wire format. The counted tokens aren't usage: the books get a call of zero tokens."""

    path = "/v1/messages/count_tokens"

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        request = super().parse(raw, body)
        return replace(request, is_stream=False, wants_stream_usage=False, tool_meters=(), is_count=True)

    def extent(self, request: ParsedRequest) -> Extent:
        return Extent(0)

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        reply = loaded_reply(body, reply)
        if not isinstance(reply, dict) or type(reply.get("input_tokens")) is not int:
            raise UpstreamFailed("The upstream sent a reply that is not a number of tokens.", may_have_worked=True)
        return Reading(counts=TokenCounts(), is_final=True, reports_tools=True)

    def with_cost(self, body: bytes, cost: str) -> bytes:
        return body

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        return ""

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        """response.usage: our own count."""
        return orjson.dumps({"input_tokens": (response.usage or TokenCounts()).prompt_tokens})


COUNT_TOKENS = CountTokens()
