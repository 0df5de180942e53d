"""The `usage` object of an Anthropic message as TokenCounts.

Sources, read 2026-11 in anthropic 2.12 `types/usage.py`, `types/message_delta_usage.py`, `types/cache_creation.py`:
- All input is `input_tokens` + `cache_creation_input_tokens` + `cache_read_input_tokens`.
- `cache_creation` splits cache writes by lifetime; without it, all of them are for 5 minutes.
- `server_tool_use` counts uses of Anthropic's own tools, beside the tokens.
- `output_tokens` includes the thinking; the figures of `message_delta` are running totals, never to be added up.
- `iterations` of type `compaction` are in none of the totals; those of type `advisor_message` are another model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm.dialects.usage_figures import (
    AbsurdFigureError,
    read_count,
    read_details,
    read_figures,
    read_tool_units,
    refuse_parts_above_totals,
)
from llm.types import TOKEN_FIELDS, TokenCounts

OTHER_MODELS_TOKENS = "other_models_tokens"
"""Extra meter for tokens of a model that the call didn't name; it has no rate, so the call is unpriced."""


def read_usage(usage: Any) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
    """(counts, absurd), as in `read_figures`: both None if input or output tokens aren't reported."""
    return read_figures(usage, _counts)


def merged_usage(start: Any, delta: Any) -> Any:
    """The usage of `message_start` updated by a later `message_delta`; what that omits stays."""
    if not isinstance(start, dict) or not isinstance(delta, dict):
        return start if delta is None else delta
    return {**start, **{name: value for name, value in delta.items() if value is not None}}


def is_last_delta(event: Mapping[str, Any]) -> bool:
    """Whether a `message_delta` has the reason for the end, and with it the final totals."""
    delta = event.get("delta")
    return isinstance(delta, dict) and bool(delta.get("stop_reason")) and isinstance(event.get("usage"), dict)


def usage_object(counts: TokenCounts) -> dict[str, Any]:
    """In Anthropic's form."""
    written = counts.cache_write_5m_tokens + counts.cache_write_1h_tokens
    return {
        "input_tokens": counts.prompt_tokens - counts.cache_read_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": counts.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": counts.cache_write_1h_tokens,
        },
        "output_tokens": counts.completion_tokens,
        "output_tokens_details": {"thinking_tokens": counts.reasoning_tokens},
        "server_tool_use": None,
        "service_tier": None,
    }


def _counts(usage: Mapping[str, Any]) -> TokenCounts | None:
    counts = _counts_of_totals(usage)
    if counts is None:
        return None
    for iteration in _iterations(usage, "compaction"):
        counts = _sum_of(counts, _counts_of_totals(iteration) or TokenCounts())
    advised = [_counts_of_totals(iteration) or TokenCounts() for iteration in _iterations(usage, "advisor_message")]
    if tokens := sum(each.total_tokens for each in advised):
        counts = replace(counts, extra_meters={**counts.extra_meters, OTHER_MODELS_TOKENS: tokens})
    refuse_parts_above_totals(counts)
    return counts


def _counts_of_totals(usage: Mapping[str, Any]) -> TokenCounts | None:
    uncached, completion = read_count(usage, "input_tokens"), read_count(usage, "output_tokens")
    if uncached is None or completion is None:
        return None
    cache_read = read_count(usage, "cache_read_input_tokens") or 0
    write_5m, write_1h = _cache_writes(usage)
    return TokenCounts(
        prompt_tokens=uncached + cache_read + write_5m + write_1h,
        completion_tokens=completion,
        cache_read_tokens=cache_read,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        reasoning_tokens=read_count(read_details(usage, "output_tokens_details"), "thinking_tokens") or 0,
        extra_meters=read_tool_units(usage),
    )


def _iterations(usage: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    listed = usage.get("iterations")
    listed = listed if isinstance(listed, list) else []
    return [each for each in listed if isinstance(each, dict) and each.get("type") == kind]


def _sum_of(one: TokenCounts, other: TokenCounts) -> TokenCounts:
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in TOKEN_FIELDS})


def _cache_writes(usage: Mapping[str, Any]) -> tuple[int, int]:
    """(5 minutes, 1 hour). The total takes precedence, since `message_delta` updates only that."""
    split = read_details(usage, "cache_creation")
    write_1h = read_count(split, "ephemeral_1h_input_tokens") or 0
    total = read_count(usage, "cache_creation_input_tokens")
    if total is None:
        return read_count(split, "ephemeral_5m_input_tokens") or 0, write_1h
    if write_1h > total:
        raise AbsurdFigureError
    return total - write_1h, write_1h
