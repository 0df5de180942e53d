"""Translated replies in OpenAI's form, complete and streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from llm.dialects.base import ParsedRequest
from llm.dialects.json_text import with_usage_cost
from llm.dialects.openai_chat.usage import usage_object
from llm.dialects.thinking import thinking_detail
from llm.types import (
    ChatResponse,
    Heartbeat,
    Reading,
    StreamEnd,
    StreamItem,
    ThinkingDelta,
    TokenCounts,
    ToolCall,
    ToolCallDelta,
)


def render_whole(response: ChatResponse, body: Mapping[str, Any], *, request_id: str, created: int) -> bytes:
    """body: the caller's; decides whether tools are rendered in the old form (`functions`)."""
    message: dict[str, Any] = {"role": "assistant", "content": response.reply, "refusal": None}
    message |= _thinking_fields([thinking_detail(thinking, index) for index, thinking in enumerate(response.thinking)])
    if response.tool_calls:
        message["content"] = response.reply or None
        message |= _tool_call_fields(response.tool_calls, is_legacy=_is_legacy(body))
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_reason(response, is_legacy=_is_legacy(body)),
    }
    return orjson.dumps(
        {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": created,
            "model": response.model,
            "choices": [choice],
            "usage": usage_object(response.usage or TokenCounts()),
            "system_fingerprint": None,
        }
    )


class OpenAIChatWriter:
    """A `StreamWriter`. All chunks but the last two have the same frame, rendered once."""

    def __init__(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> None:
        self._wants_usage = request.wants_stream_usage
        self._is_legacy = _is_legacy(request.body)
        frame = {"id": f"chatcmpl-{request_id}", "object": "chat.completion.chunk", "created": created, "model": model}
        self._frame = {**frame, "system_fingerprint": None}
        self._before_delta = b"data: " + orjson.dumps(self._frame)[:-1] + b',"choices":[{"index":0,"delta":'
        # With usage requested, each chunk before it has a null, as OpenAI's do.
        self._usage_member = b',"usage":null' if self._wants_usage else b""
        self._after_delta = b',"logprobs":null,"finish_reason":null}]' + self._usage_member + b"}\n\n"

    def start(self) -> bytes:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def item(self, item: StreamItem) -> bytes:
        if isinstance(item, str):
            return self._chunk({"content": item})
        if isinstance(item, StreamEnd | Heartbeat | Reading):
            return b""
        if isinstance(item, ThinkingDelta):
            return self._chunk(_thinking_fields([thinking_detail(item, item.index)]))
        if self._is_legacy:
            return self._chunk({"function_call": _function_delta(item)}) if item.index == 0 else b""
        return self._chunk({"tool_calls": [tool_call_delta_object(item)]})

    def finish(self, response: ChatResponse, *, cost: str | None = None) -> bytes:
        reason = orjson.dumps(_finish_reason(response, is_legacy=self._is_legacy))
        ending = b',"logprobs":null,"finish_reason":' + reason + b"}]" + self._usage_member + b"}\n\n"
        last = self._before_delta + b"{}" + ending
        return last + (self._usage_chunk(response, cost) if self._wants_usage else b"") + b"data: [DONE]\n\n"

    def _chunk(self, delta: Mapping[str, Any]) -> bytes:
        return self._before_delta + orjson.dumps(delta) + self._after_delta

    def _usage_chunk(self, response: ChatResponse, cost: str | None) -> bytes:
        usage = usage_object(response.usage or TokenCounts())
        chunk = b"data: " + orjson.dumps({**self._frame, "choices": [], "usage": usage}) + b"\n\n"
        return chunk if cost is None else with_usage_cost(chunk, cost)


def tool_call_object(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def tool_call_delta_object(delta: ToolCallDelta) -> dict[str, Any]:
    opening = {"id": delta.id, "type": "function"} if delta.id else {}
    return {"index": delta.index, **opening, "function": _function_delta(delta)}


def _thinking_fields(details: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The text for display, and the details for sending back."""
    text = "".join(str(detail.get("text", "")) for detail in details)
    fields: dict[str, Any] = {"reasoning_content": text} if text else {}
    return {**fields, "reasoning_details": details} if details else fields


def _is_legacy(body: Mapping[str, Any]) -> bool:
    return bool(body.get("functions")) and not body.get("tools")


def _finish_reason(response: ChatResponse, *, is_legacy: bool) -> str:
    return "function_call" if is_legacy and response.finish_reason == "tool_calls" else response.finish_reason


def _tool_call_fields(calls: Sequence[ToolCall], *, is_legacy: bool) -> dict[str, Any]:
    if is_legacy:
        return {"function_call": {"name": calls[0].name, "arguments": calls[0].arguments}}
    return {"tool_calls": [tool_call_object(call) for call in calls]}


def _function_delta(delta: ToolCallDelta) -> dict[str, str]:
    return {"name": delta.name, "arguments": delta.arguments} if delta.name else {"arguments": delta.arguments}
