"""OpenAI's `POST /v1/responses/input_tokens`: how many tokens the input of a response has, for nothing.

Source, read 2026-11: openai 3.54 (`types/responses/input_token_count_params.py`, `input_token_count_response.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llm.dialects.base import Extent, ParsedRequest
from llm.dialects.openai_responses.wire import ResponsesPassThrough
from llm.dialects.reply_fields import loaded_reply
from llm.errors import UpstreamFailed
from llm.types import Reading, TokenCounts


class InputTokens(ResponsesPassThrough):
    """The `PassThrough` wire format of it. What was counted is no usage: the books hold a call of zero tokens."""

    path = "/responses/input_tokens"
    name = "input token counts (POST /v1/responses/input_tokens)"
    is_on_every_server = False
    stores_by_default = False

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        return replace(super().parse(raw, body), is_stream=False, tool_meters=(), is_count=True)

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


INPUT_TOKENS = InputTokens()
