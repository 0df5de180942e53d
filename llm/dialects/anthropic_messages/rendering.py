"""Translated replies in Anthropic's form, complete and streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llm.dialects.anthropic_messages.usage import usage_object
from llm.dialects.json_text import with_usage_cost
from llm.dialects.thinking import thinking_block
from llm.types import (
    ChatResponse,
    FinishReason,
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

_STOP_REASONS: Mapping[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def render_whole(response: ChatResponse, *, request_id: str) -> bytes:
    content: list[dict[str, Any]] = [thinking_block(each) for each in response.thinking]
    content += [{"type": "text", "text": response.reply}] if response.reply else []
    content += [_tool_use(call, number) for number, call in enumerate(response.tool_calls)]
    message = _message(request_id, response.model, content, usage_object(response.usage or TokenCounts()))
    return orjson.dumps({**message, "stop_reason": _STOP_REASONS[response.finish_reason]})


class MessagesWriter:
    """A `StreamWriter`. One block is open at a time; it begins with the first item of its kind."""

    def __init__(self, *, model: str, request_id: str) -> None:
        self._model = model
        self._request_id = request_id
        self._blocks = 0
        self._open: int | None = None
        self._text: int | None = None
        self._thinking: tuple[int, int] | None = None
        self._calls: dict[int, int] = {}

    def start(self) -> bytes:
        """The input's tokens are known only at the end, in `message_delta`."""
        message = _message(self._request_id, self._model, [], usage_object(TokenCounts()))
        return _event("message_start", message=message)

    def item(self, item: StreamItem) -> bytes:
        if isinstance(item, StreamEnd | Heartbeat | Reading):
            return b""
        if isinstance(item, ThinkingDelta):
            return self._thinking_piece(item)
        return self._text_piece(item) if isinstance(item, str) else self._call_piece(item)

    def finish(self, response: ChatResponse, *, cost: str | None = None) -> bytes:
        delta = {"stop_reason": _STOP_REASONS[response.finish_reason], "stop_sequence": None}
        last = _event("message_delta", delta=delta, usage=usage_object(response.usage or TokenCounts()))
        last = last if cost is None else with_usage_cost(last, cost)
        return self._closed() + last + _event("message_stop")

    def _thinking_piece(self, piece: ThinkingDelta) -> bytes:
        if piece.data:
            return self._opened(thinking_block(Thinking(data=piece.data)))
        opening = b""
        if self._thinking is None or self._thinking != (piece.index, self._open):
            opening = self._opened(thinking_block(Thinking()))
            self._thinking = (piece.index, self._blocks - 1)
        deltas: list[dict[str, str]] = []
        if piece.text:
            deltas.append({"type": "thinking_delta", "thinking": piece.text})
        if piece.signature:
            deltas.append({"type": "signature_delta", "signature": piece.signature})
        return opening + b"".join([_event("content_block_delta", index=self._open, delta=delta) for delta in deltas])

    def _text_piece(self, text: str) -> bytes:
        opening = b""
        if self._text is None or self._open != self._text:
            opening = self._opened({"type": "text", "text": ""})
            self._text = self._open
        delta = {"type": "text_delta", "text": text}
        return opening + _event("content_block_delta", index=self._text, delta=delta)

    def _call_piece(self, piece: ToolCallDelta) -> bytes:
        opening = b""
        if piece.index not in self._calls:
            call = ToolCall(piece.id, piece.name, "")
            opening = self._opened({**_tool_use(call, piece.index), "input": {}})
            self._calls[piece.index] = self._blocks - 1
        if not piece.arguments:
            return opening
        delta = {"type": "input_json_delta", "partial_json": piece.arguments}
        return opening + _event("content_block_delta", index=self._calls[piece.index], delta=delta)

    def _opened(self, block: Mapping[str, Any]) -> bytes:
        closing = self._closed()
        self._open = self._blocks
        self._blocks += 1
        return closing + _event("content_block_start", index=self._open, content_block=block)

    def _closed(self) -> bytes:
        if self._open is None:
            return b""
        index, self._open = self._open, None
        return _event("content_block_stop", index=index)


def _message(request_id: str, model: str, content: list[dict[str, Any]], usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{request_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _tool_use(call: ToolCall, number: int) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call.id or f"toolu_{number}",
        "name": call.name,
        "input": _input(call.arguments),
    }


def _input(arguments: str) -> dict[str, Any]:
    """Arguments that aren't an object are wrapped as Anthropic advises (docs, "Fine-grained tool streaming", read
    2026-11).
    """
    try:
        read = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        read = None
    return read if isinstance(read, dict) else {"INVALID_JSON": arguments}


def _event(kind: str, **members: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **members}) + b"\n\n"
