"""What the `usage` object of an Anthropic message says, as TokenCounts.

Sources, read 2026-11 in anthropic 2.12 `types/usage.py`, `types/message_delta_usage.py`, `types/cache_creation.py`:
- All input is `input_tokens` + `cache_creation_input_tokens` + `cache_read_input_tokens`.
- `cache_creation` splits what was written to the cache by lifetime; without it, all of it is for 5 minutes.
- `output_tokens` holds the thinking; the figures of `message_delta` are running totals, never to be added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.usage_figures import AbsurdFigureError, count_of, details_of, refuse_parts_above_totals
from llm.types import TokenCounts


def read_usage(usage: Any) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
    """(counts, absurd), as `openai_usage.read_usage`: both None when input or output tokens are not reported."""
    if usage is None or usage == {}:
        return None, None
    if not isinstance(usage, dict):
        return None, {"usage": usage}
    try:
        return _counts(usage), None
    except AbsurdFigureError:
        return None, usage


def merged_usage(start: Any, delta: Any) -> Any:
    """The usage of `message_start` with what a later `message_delta` says; what that leaves out stays."""
    if not isinstance(start, dict) or not isinstance(delta, dict):
        return start if delta is None else delta
    return {**start, **{name: value for name, value in delta.items() if value is not None}}


def _counts(usage: Mapping[str, Any]) -> TokenCounts | None:
    uncached, completion = count_of(usage, "input_tokens"), count_of(usage, "output_tokens")
    if uncached is None or completion is None:
        return None
    cache_read = count_of(usage, "cache_read_input_tokens") or 0
    write_5m, write_1h = _cache_writes(usage)
    web_searches = count_of(details_of(usage, "server_tool_use"), "web_search_requests")
    counts = TokenCounts(
        prompt_tokens=uncached + cache_read + write_5m + write_1h,
        completion_tokens=completion,
        cache_read_tokens=cache_read,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        reasoning_tokens=count_of(details_of(usage, "output_tokens_details"), "thinking_tokens") or 0,
        extra_meters={"web_searches": web_searches} if web_searches else {},
    )
    refuse_parts_above_totals(counts)
    return counts


def _cache_writes(usage: Mapping[str, Any]) -> tuple[int, int]:
    """(5 minutes, 1 hour). The total leads, since only it is brought up to date by `message_delta`."""
    split = details_of(usage, "cache_creation")
    write_1h = count_of(split, "ephemeral_1h_input_tokens") or 0
    total = count_of(usage, "cache_creation_input_tokens")
    if total is None:
        return count_of(split, "ephemeral_5m_input_tokens") or 0, write_1h
    if write_1h > total:
        raise AbsurdFigureError
    return total - write_1h, write_1h
