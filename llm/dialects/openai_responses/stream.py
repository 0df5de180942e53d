"""Follows a pass-through stream of a response: typed events, the last with the complete response and its usage.

Only events with a response, an error or money are parsed. The last one is held back until the call is on the books; if
the account shows its cost, the usage of its response gets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.event_reader import EventReader
from llm.dialects.json_size import is_readable_event
from llm.dialects.json_text import find_member, with_usage_cost
from llm.dialects.money_fields import may_hold_money
from llm.dialects.openai_responses.text import event_text
from llm.dialects.openai_responses.usage import read_usage
from llm.dialects.reply_fields import loaded
from llm.dialects.sse import read_event
from llm.types import TokenCounts

ENDINGS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
ACCOUNT_CODES = frozenset(
    (
        *("rate_limit_exceeded", "insufficient_quota", "invalid_api_key", "authentication_error", "permission_error"),
        *("billing_hard_limit_reached", "billing_not_active", "account_deactivated"),
    )
)
"""Codes of a failed response: its provider doesn't serve our account. The message isn't for callers."""


class OpenAIResponsesReader(EventReader):
    """A `StreamReader`."""

    LAST_EVENT = b""

    def __init__(self) -> None:
        super().__init__(event_text)
        self._response: Mapping[str, Any] = {}

    def end(self) -> bytes:
        """The last event counts even without the blank line, if it arrived whole."""
        data = read_event(self._splitter.pending).data
        last_event = loaded(data) if data and is_readable_event(data) else None
        return self.feed(b"\n\n") if last_event and last_event.get("type") in ENDINGS else b""

    def finish(self, *, cost: str | None = None) -> bytes:
        last_event = super().finish()
        return last_event if cost is None else with_response_cost(last_event, cost)

    def _is_plain(self, block: bytes) -> bool:
        return (
            bool(self._model)
            and block.startswith((b"event:", b"data:"))
            and b'"response"' not in block
            and b'"error"' not in block
            and b"event: error" not in block
            and b"\nerror:" not in block
            and not may_hold_money(block)
        )

    def _is_end(self, raw: bytes) -> bool:
        """The last event must be parsed like all others, so it has to be whole."""
        return False

    def _failure_in(self, document: Mapping[str, Any]) -> str | None:
        response = document.get("response")
        if isinstance(response, dict) and is_account_failure(response):
            return super()._failure_in(response)
        return super()._failure_in(document)

    def _pass_document(self, raw: bytes, document: Mapping[str, Any]) -> bytes:
        if not self._is_final or not isinstance(document.get("response"), dict):
            return raw
        self._last_event = raw
        return b""

    def _identify(self, document: Mapping[str, Any]) -> None:
        response = document.get("response")
        if isinstance(response, dict):
            self._response, self._is_final = response, document.get("type") in ENDINGS
            super()._identify(response)

    def _read_usage(self) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
        usage = read_usage(self._response)
        return usage.counts, usage.absurd

    def _reports_tools(self) -> bool:
        return self._is_final and read_usage(self._response).reports_tools


def is_account_failure(response: Mapping[str, Any]) -> bool:
    error = response.get("error")
    return isinstance(error, dict) and str(error.get("code")) in ACCOUNT_CODES


def with_response_cost(event: bytes, cost: str) -> bytes:
    """The event with `usage.cost` in its response. cost: a plain decimal number."""
    member = find_member(event, b"response")
    if member is None:
        return event
    response = with_usage_cost(event[member.value : member.end], cost)
    return event[: member.value] + response + event[member.end :]
