"""How a provider reads the answers of Anthropic's Messages API, complete and streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llm.dialects.anthropic_messages.usage import is_last_delta, merged_usage, read_usage
from llm.dialects.json_size import is_readable_event
from llm.dialects.money_fields import read_upstream_cost
from llm.dialects.thinking import BLOCK_KINDS, read_blocks
from llm.dialects.usage_figures import read_service
from llm.errors import UpstreamFailed
from llm.types import (
    ChatResponse,
    FinishReason,
    Heartbeat,
    Reading,
    Service,
    StreamEnd,
    StreamItem,
    ThinkingDelta,
    TokenCounts,
    ToolCall,
    ToolCallDelta,
)

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def read_reply(body: bytes, reply: Any = None) -> ChatResponse:
    """Raises UpstreamFailed if it isn't a message.

    reply: the parsed bytes, if they were parsed elsewhere.
    """
    message = _loaded(body) if reply is None else reply
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        raise _not_understood()
    blocks = [block for block in content if isinstance(block, dict)]
    return ChatResponse(
        reply="".join(_text(block, "text") for block in blocks if block.get("type") == "text"),
        model=_text(message, "model"),
        usage=_usage(message.get("usage")),
        finish_reason=_finish_reason(message),
        tool_calls=tuple(_tool_call(block) for block in blocks if block.get("type") == "tool_use"),
        response_id=_text(message, "id"),
        **read_service({}, message.get("usage"))._asdict(),
        upstream_cost=read_upstream_cost(message),
        thinking=read_blocks(blocks),
    )


class MessageCollector:
    """Reads a stream's events one after another; `end` is due once `is_done`, after `message_stop`."""

    def __init__(self) -> None:
        self.is_done = False
        self._message: Mapping[str, Any] = {}
        self._usage: Any = None
        self._finish_reason: FinishReason = "stop"
        self._calls: dict[int, _OpenCall] = {}
        self._thoughts: dict[int, int] = {}

    def feed(self, data: bytes) -> list[StreamItem]:
        """data: of one event. Raises UpstreamFailed for an error event, and for anything that isn't an event of a
        message.
        """
        event = _loaded(data)
        try:
            return self._read(event)
        except (KeyError, TypeError, AttributeError) as error:
            raise _not_understood() from error

    def end(self) -> StreamEnd:
        return StreamEnd(
            model=_text(self._message, "model"),
            usage=_usage(self._usage),
            finish_reason=self._finish_reason,
            response_id=_text(self._message, "id"),
            **read_service({}, self._usage)._asdict(),
            upstream_cost=read_upstream_cost({"usage": self._usage}),
        )

    def _read(self, event: Mapping[str, Any]) -> list[StreamItem]:
        match event.get("type"):
            case "message_start":
                self._message = event["message"]
                self._usage = self._message.get("usage")
                return [self._reading()]
            case "content_block_start":
                return self._open_block(event["index"], event["content_block"])
            case "content_block_delta":
                return self._read_delta(event["index"], event["delta"])
            case "content_block_stop":
                return self._close_block(event["index"])
            case "message_delta":
                self._finish_reason = _finish_reason(event["delta"])
                self._usage = merged_usage(self._usage, event.get("usage"))
                return [self._reading(is_final=is_last_delta(event))]
            case "message_stop":
                self.is_done = True
            case "ping":
                return [Heartbeat.PING]
            case "error":
                message = "The provider reported an error in the middle of its answer."
                raise UpstreamFailed(message, may_have_worked=True)
        # Other types are ignored: Anthropic adds events at will.
        return []

    def _reading(self, *, is_final: bool = False) -> Reading:
        """The prompt's tokens come first and don't change: translated requests offer no tools that Anthropic runs."""
        end = self.end()
        return Reading(
            counts=end.usage,
            model=end.model,
            response_id=end.response_id,
            service=Service(end.service_tier, end.speed, end.inference_geo),
            is_final=is_final,
            is_input_final=end.usage is not None,
            upstream_cost=end.upstream_cost,
        )

    def _open_block(self, index: int, block: Mapping[str, Any]) -> list[StreamItem]:
        if block["type"] == "text":
            return [block["text"]] if block.get("text") else []
        if block["type"] in BLOCK_KINDS:
            return self._open_thinking(index, block)
        if block["type"] != "tool_use":
            return []
        call = self._calls[index] = _OpenCall(position=len(self._calls))
        items: list[StreamItem] = [ToolCallDelta(call.position, id=block["id"], name=block["name"])]
        if block.get("input"):
            items += call.add(orjson.dumps(block["input"]).decode())
        return items

    def _open_thinking(self, index: int, block: Mapping[str, Any]) -> list[StreamItem]:
        position = self._thoughts[index] = len(self._thoughts)
        return [ThinkingDelta(position, each.text, each.signature, each.data) for each in read_blocks([block])]

    def _read_delta(self, index: int, delta: Mapping[str, Any]) -> list[StreamItem]:
        if delta["type"] == "text_delta":
            return [delta["text"]] if delta["text"] else []
        if delta["type"] == "input_json_delta" and index in self._calls:
            return self._calls[index].add(delta["partial_json"])
        if delta["type"] in ("thinking_delta", "signature_delta") and index in self._thoughts:
            text, signature = _text(delta, "thinking"), _text(delta, "signature")
            return [ThinkingDelta(self._thoughts[index], text, signature)] if text or signature else []
        return []

    def _close_block(self, index: int) -> list[StreamItem]:
        """A tool without parameters streams no arguments at all, where callers expect an object."""
        call = self._calls.get(index)
        return call.add("{}") if call is not None and not call.has_arguments else []


class _OpenCall:
    """A tool call in progress. position: among the tool calls, whereas Anthropic's index also counts texts."""

    def __init__(self, *, position: int) -> None:
        self.position = position
        self.has_arguments = False

    def add(self, arguments: str) -> list[StreamItem]:
        if not arguments:
            return []
        self.has_arguments = True
        return [ToolCallDelta(self.position, arguments=arguments)]


def _usage(usage: Any) -> TokenCounts | None:
    """Absurd figures become an impossible count, which the settlement disputes; None would mean that there was no
    report.
    """
    counts, absurd_usage = read_usage(usage)
    return TokenCounts(prompt_tokens=-1) if absurd_usage is not None else counts


def _finish_reason(source: Mapping[str, Any]) -> FinishReason:
    return _FINISH_REASONS.get(_text(source, "stop_reason"), "stop")


def _tool_call(block: Mapping[str, Any]) -> ToolCall:
    return ToolCall(_text(block, "id"), _text(block, "name"), orjson.dumps(block.get("input") or {}).decode())


def _text(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        loaded = orjson.loads(body) if is_readable_event(body) else None
    except orjson.JSONDecodeError:
        loaded = None
    if not isinstance(loaded, dict):
        raise _not_understood()
    return loaded


def _not_understood() -> UpstreamFailed:
    return UpstreamFailed("The provider's answer can't be understood.", may_have_worked=True)
