"""The gateway's own format: `POST /api/chat`. A request has the fields of OpenAI's chat completions, `messages` alone
required; the reply is `{"reply", "model", "usage"}`, with `tool_calls` if there are any.

A stream is `{"delta"}` events of text (or `{"tool_calls"}` deltas, as OpenAI's), then one `{"model", "usage"}` event,
its last byte. Thinking is omitted. No upstream speaks this format, so every call is translated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from llm.dialects.base import Extent, Origin, ParsedRequest, Rendered, StreamWriter
from llm.dialects.json_text import with_usage_cost
from llm.dialects.openai_chat import errors as openai_errors
from llm.dialects.openai_chat.rendering import tool_call_delta_object, tool_call_object
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.reply_headers import retry_headers
from llm.dialects.sse import COMMENT
from llm.enums import Dialect
from llm.errors import GatewayError
from llm.types import (
    ChatRequest,
    ChatResponse,
    Heartbeat,
    LimitState,
    Reading,
    StreamEnd,
    StreamItem,
    ThinkingDelta,
    TokenCounts,
)


class Native:
    """A `WireFormat`."""

    dialect = Dialect.NATIVE
    request_id_header = "x-request-id"
    duration_header = "openai-processing-ms"
    keepalive = COMMENT

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        request = OPENAI_CHAT.parse(raw, body)
        return replace(request, dialect=self.dialect, wants_stream_usage=request.is_stream)

    def to_chat(self, request: ParsedRequest, *, upstream_model: str) -> ChatRequest:
        return OPENAI_CHAT.to_chat(request, upstream_model=upstream_model)

    def own_name(self, param: str, request: ParsedRequest) -> str:
        return OPENAI_CHAT.own_name(param, request)

    def prompt_text(self, request: ParsedRequest) -> str:
        return OPENAI_CHAT.prompt_text(request)

    def extent(self, request: ParsedRequest) -> Extent:
        return OPENAI_CHAT.extent(request)

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        reply: dict[str, Any] = {"reply": response.reply, **_ending(response)}
        if response.tool_calls:
            reply["tool_calls"] = [tool_call_object(call) for call in response.tool_calls]
        return orjson.dumps(reply)

    def with_cost(self, body: bytes, cost: str) -> bytes:
        return with_usage_cost(body, cost)

    def stream_writer(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> StreamWriter:
        return NativeWriter()

    def render_error(self, error: GatewayError, *, request_id: str) -> Rendered:
        return Rendered(status=error.http_status, body=_error_body(error), headers=retry_headers(error))

    def render_stream_error(self, error: GatewayError, *, request_id: str, origin: Origin) -> bytes:
        return _event(_error_body(error, {"status": error.http_status, **origin}))

    def limit_headers(self, limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
        return openai_errors.limit_headers(limits, now=now)


class NativeWriter:
    """A `StreamWriter`."""

    def start(self) -> bytes:
        return b""

    def item(self, item: StreamItem) -> bytes:
        if isinstance(item, str):
            return _event(orjson.dumps({"delta": item}))
        if isinstance(item, StreamEnd | ThinkingDelta | Heartbeat | Reading):
            return b""
        return _event(orjson.dumps({"tool_calls": [tool_call_delta_object(item)]}))

    def finish(self, response: ChatResponse, *, cost: str | None = None) -> bytes:
        last = orjson.dumps(_ending(response))
        return _event(last if cost is None else with_usage_cost(last, cost))


NATIVE = Native()


def _ending(response: ChatResponse) -> Mapping[str, Any]:
    counts = response.usage or TokenCounts()
    usage = {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
    }
    return {"model": response.model, "usage": usage}


def _error_body(error: GatewayError, origin: Origin | None = None) -> bytes:
    return orjson.dumps({"error": {"code": error.code, "message": error.message, **(origin or {})}})


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
