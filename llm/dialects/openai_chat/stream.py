"""Follows a pass-through chat stream at the cost of a few byte searches per block.

In addition to what every `EventReader` does, one thing changes: if the caller didn't ask for usage, the usage chunk and
the `"usage":null` that we caused are removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from llm.dialects.event_reader import EventReader
from llm.dialects.json_text import without_member
from llm.dialects.money_fields import may_hold_money
from llm.dialects.openai_chat.usage import is_last_chunk, read_usage
from llm.dialects.reply_fields import loaded
from llm.dialects.sse import read_event
from llm.types import TokenCounts

# Followed by the brace that closes the event, it is a member of the event's own object, not of a nested one.
_NULL_USAGE = re.compile(rb',"usage":null(?=(?:,"obfuscation":"[^"\\]*+")?\}\r?\n)')
_DONE = b"[DONE]"


class OpenAIChatReader(EventReader):
    """A `StreamReader`. wants_usage: the caller asked for the usage chunk. choice_text: gets the text of a choice."""

    LAST_EVENT = b"data: [DONE]\n\n"

    def __init__(self, *, wants_usage: bool, choice_text: Callable[[Mapping[str, Any]], str]) -> None:
        super().__init__(partial(_chunk_text, choice_text))
        self._wants_usage = wants_usage

    def _unasked_removed(self, block: bytes) -> bytes:
        if not self._wants_usage and b',"usage":null' in block:
            return _NULL_USAGE.sub(b"", block)
        return block

    def _is_plain(self, block: bytes) -> bool:
        """Only structural quotes are unescaped, so a model's text can't look like these."""
        return (
            bool(self._model)
            and not self._is_final
            and block.startswith(b"data:")
            and not self._tells_usage(block)
            and not may_hold_money(block)
            and b'"error"' not in block
            and _DONE not in block
            and b"\nerror:" not in block
        )

    def _tells_usage(self, block: bytes) -> bool:
        if b'"usage"' not in block:
            return False
        return not self._wants_usage or block.count(b'"usage"') != block.count(b'"usage":null')

    def _is_end(self, raw: bytes) -> bool:
        data = read_event(raw).data if _DONE in raw else None
        return data is not None and data.strip() == _DONE

    def _pass_document(self, raw: bytes, document: Mapping[str, Any]) -> bytes:
        choices, usage = document.get("choices"), document.get("usage")
        if usage is not None:
            self._usage = usage
            self._is_final = is_last_chunk(choices)
        elif choices:
            self._is_final = False
        if isinstance(usage, dict) and choices == [] and not self._wants_usage:
            return b""
        if isinstance(usage, dict) and self._is_final and self._wants_usage:
            return self._hold(raw)
        if usage is None and "usage" in document and not self._wants_usage:
            raw = without_member(raw, b"usage")
        if choices == [] and self._usage_event:
            return self._hold_behind(raw)
        return self._released() + raw

    def _read_usage(self) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
        return read_usage(self._usage)


def _chunk_text(choice_text: Callable[[Mapping[str, Any]], str], data: bytes) -> str:
    chunk = loaded(data)
    choices = chunk.get("choices") if chunk else None
    if not isinstance(choices, list):
        return ""
    return "".join([choice_text(choice) for choice in choices if isinstance(choice, dict)])
