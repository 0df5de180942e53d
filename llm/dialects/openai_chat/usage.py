"""The `usage` object of an OpenAI-style chat reply as TokenCounts, and back.

Sources, read 2026-11: openai 3.54 (`types/completion_usage.py`), the extractors of genai-prices 0.2.3, and for
compatible servers bug reports with live figures (vercel/ai 12425, mozilla-ai/any-llm 1291).
- OpenAI: `cached_tokens`, `cache_write_tokens` and `audio_tokens` are inside `prompt_tokens`; `reasoning_tokens` and
  `audio_tokens` are inside `completion_tokens`. `cache_write_tokens` are recorded as 5 minute writes, except those that
  `cache_write_tokens_details` reports as kept for 12 hours.
- xAI (`reasoning_tokens`) and Gemini's compatible endpoint (no details at all) count thinking outside
  `completion_tokens` but inside `total_tokens`, and bill it as output. So if the total exceeds the sum, the surplus is
  output: our total then always equals the provider's.
- OpenRouter counts its own tools in `server_tool_use` (openrouter.ai, client SDKs, `BodyServerToolUse`).
- DeepSeek reports cached tokens as `prompt_cache_hit_tokens`, Moonshot as `cached_tokens`, both directly in `usage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from llm.dialects.usage_figures import (
    UNITS_IN_USAGE,
    AbsurdFigureError,
    read_count,
    read_details,
    read_figures,
    read_tool_units,
    refuse_parts_above_totals,
)
from llm.types import TokenCounts


class UsageNames(NamedTuple):
    """An endpoint's names for what all of them report."""

    input: str
    output: str
    input_details: str
    output_details: str


_NAMES = UsageNames("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")


def read_usage(usage: Any) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
    """(counts, absurd) as in `read_figures`; both prompt and completion tokens must be given."""
    return read_figures(usage, partial(counts_by, _NAMES))


def is_last_chunk(choices: Any) -> bool:
    """Whether a chunk with usage is the last: it has no choices, or gives a reason for each one's end."""
    if choices is None:
        return True
    if not isinstance(choices, list):
        return False
    return all(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices)


def usage_object(counts: TokenCounts) -> dict[str, Any]:
    """In OpenAI's form."""
    prompt_details = {"cached_tokens": counts.cache_read_tokens, "audio_tokens": counts.audio_input_tokens}
    if written := counts.cache_write_5m_tokens + counts.cache_write_1h_tokens:
        prompt_details["cache_write_tokens"] = written
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning_tokens,
            "audio_tokens": counts.audio_output_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def counts_by(names: UsageNames, usage: Mapping[str, Any]) -> TokenCounts | None:
    """None if input or output isn't given. Raises AbsurdFigureError."""
    prompt, completion = read_count(usage, names.input), read_count(usage, names.output)
    total = read_count(usage, "total_tokens")
    if prompt is None or completion is None:
        return None
    prompt_details, completion_details = (
        read_details(usage, names.input_details),
        read_details(usage, names.output_details),
    )
    hidden = max(0, (total or 0) - prompt - completion)
    counts = TokenCounts(
        prompt_tokens=prompt,
        completion_tokens=completion + hidden,
        cache_read_tokens=_cached(usage, prompt_details),
        **_cache_writes(prompt_details),
        reasoning_tokens=read_count(completion_details, "reasoning_tokens") or hidden,
        audio_input_tokens=read_count(prompt_details, "audio_tokens") or 0,
        audio_output_tokens=read_count(completion_details, "audio_tokens") or 0,
        extra_meters=_extra_meters(usage),
    )
    refuse_parts_above_totals(counts)
    return counts


def _cache_writes(details: Mapping[str, Any]) -> dict[str, int]:
    """By lifetime; what is kept for 12 hours is recorded as the longer of our two."""
    written = read_count(details, "cache_write_tokens") or 0
    long = read_count(read_details(details, "cache_write_tokens_details"), "ttl_12h_tokens") or 0
    if long > written:
        raise AbsurdFigureError
    return {"cache_write_5m_tokens": written - long, "cache_write_1h_tokens": long}


def _extra_meters(usage: Mapping[str, Any]) -> dict[str, int]:
    """Units billed beside tokens; zeros are omitted, since they need no rate."""
    named = {meter: units for name, meter in UNITS_IN_USAGE.items() if (units := read_count(usage, name))}
    return {**read_tool_units(usage), **named}


def _cached(usage: Mapping[str, Any], details: Mapping[str, Any]) -> int:
    for source, name in ((details, "cached_tokens"), (usage, "prompt_cache_hit_tokens"), (usage, "cached_tokens")):
        count = read_count(source, name)
        if count is not None:
            return count
    return 0
