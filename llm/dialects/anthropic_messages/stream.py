"""Follows a pass-through stream of messages at the cost of a few byte searches per block.

`message_start` has the model and the input; `message_delta` has the running totals, is held back with `message_stop`,
and gets the cost. Everything else passes, including unknown events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.anthropic_messages.blocks import event_text
from llm.dialects.anthropic_messages.tools import UsesOfTools
from llm.dialects.anthropic_messages.usage import is_last_delta, merged_usage, read_usage
from llm.dialects.event_reader import EventReader
from llm.dialects.money_fields import may_hold_money
from llm.dialects.reply_fields import loaded
from llm.dialects.sse import read_event
from llm.types import TokenCounts

_STOP = b"message_stop"
_MAX_STOP_BYTES = 4096
# `message_start`, `message_delta` and `message_stop`; blocks of tools that the provider runs.
_MARKS = (b"message_", b'"usage"', b'"error"', b"server_tool_use", b"\nerror:", b"event: error", b"event:error")


class MessagesReader(EventReader):
    """A `StreamReader`."""

    LAST_EVENT = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    def __init__(self) -> None:
        super().__init__(event_text)
        self._uses = UsesOfTools()

    def _is_plain(self, block: bytes) -> bool:
        """Only structural quotes are unescaped, so a model's text can't look like most of these."""
        return (
            bool(self._model)
            and not self._usage_event
            and block.startswith((b"event:", b"data:"))
            and not any(mark in block for mark in _MARKS)
            and not may_hold_money(block)
        )

    def _is_end(self, raw: bytes) -> bool:
        if _STOP not in raw or len(raw) > _MAX_STOP_BYTES:
            return False
        return (loaded(read_event(raw).data or b"") or {}).get("type") == "message_stop"

    def _pass_document(self, raw: bytes, document: Mapping[str, Any]) -> bytes:
        kind = document.get("type")
        if kind == "content_block_start":
            self._uses.note(document.get("content_block"))
        if kind == "message_delta":
            self._usage = merged_usage(self._usage, document.get("usage"))
            self._is_final = is_last_delta(document)
            return self._hold(raw) if self._is_final else self._released() + raw
        if kind == "ping" and self._usage_event:
            return self._hold_behind(raw)
        return self._released() + raw

    def _identify(self, document: Mapping[str, Any]) -> None:
        message = document.get("message")
        if document.get("type") == "message_start" and isinstance(message, dict):
            self._usage = message.get("usage")
            document = message
        super()._identify(document)

    def _read_usage(self) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
        return read_usage(self._uses.with_searches(self._usage))

    def _is_input_final(self) -> bool:
        """`message_start` has it; results of the provider's tools are added later."""
        return self._usage is not None and self._uses.are_none

    def _reports_tools(self) -> bool:
        return self._uses.are_reported
