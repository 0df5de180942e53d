"""What the `usage` object of an OpenAI-style chat reply says, as TokenCounts, and back.

Sources, read 2026-11: openai 3.54 (`types/completion_usage.py`), the extractors of genai-prices 0.2.3, and for
compatible servers bug reports with live figures (vercel/ai 12425, mozilla-ai/any-llm 1291).
- OpenAI: `cached_tokens`, `cache_write_tokens` and `audio_tokens` are inside `prompt_tokens`; `reasoning_tokens` and
  `audio_tokens` are inside `completion_tokens`. `cache_write_tokens` has one lifetime, booked as the 5 minute write.
- xAI (`reasoning_tokens`) and Gemini's compatible endpoint (no detail at all) count thinking beside
  `completion_tokens` but inside `total_tokens`, and bill it as output. So where the total exceeds the sum, the surplus
  is output: our total then always is the provider's.
- DeepSeek names cached tokens `prompt_cache_hit_tokens`, Moonshot `cached_tokens`, both directly in `usage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.usage_figures import AbsurdFigureError, count_of, details_of, refuse_parts_above_totals
from llm.types import TokenCounts

# Units that are billed beside tokens, as Perplexity and xAI name them -> our meter.
_EXTRA_METERS = {"num_search_queries": "web_searches", "num_sources_used": "search_sources"}


def read_usage(usage: Any) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
    """(counts, absurd): both None when there is no usage, or none that says both prompt and completion tokens.

    absurd: the object as it came, when a figure in it is negative, not a whole number, beyond 10^9, or a part is
    larger than its total.
    """
    if usage is None or usage == {}:
        return None, None
    if not isinstance(usage, dict):
        return None, {"usage": usage}
    try:
        return _counts(usage), None
    except AbsurdFigureError:
        return None, usage


def usage_object(counts: TokenCounts) -> dict[str, Any]:
    """As OpenAI writes it."""
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


def _counts(usage: Mapping[str, Any]) -> TokenCounts | None:
    prompt, completion = count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens")
    total = count_of(usage, "total_tokens")
    if prompt is None or completion is None:
        return None
    prompt_details = details_of(usage, "prompt_tokens_details")
    completion_details = details_of(usage, "completion_tokens_details")
    hidden = max(0, (total or 0) - prompt - completion)
    counts = TokenCounts(
        prompt_tokens=prompt,
        completion_tokens=completion + hidden,
        cache_read_tokens=_cached(usage, prompt_details),
        cache_write_5m_tokens=count_of(prompt_details, "cache_write_tokens") or 0,
        reasoning_tokens=count_of(completion_details, "reasoning_tokens") or hidden,
        audio_input_tokens=count_of(prompt_details, "audio_tokens") or 0,
        audio_output_tokens=count_of(completion_details, "audio_tokens") or 0,
        # A zero is left out: it needs no rate.
        extra_meters={meter: units for name, meter in _EXTRA_METERS.items() if (units := count_of(usage, name))},
    )
    refuse_parts_above_totals(counts)
    return counts


def _cached(usage: Mapping[str, Any], details: Mapping[str, Any]) -> int:
    for source, name in ((details, "cached_tokens"), (usage, "prompt_cache_hit_tokens"), (usage, "cached_tokens")):
        count = count_of(source, name)
        if count is not None:
            return count
    return 0
