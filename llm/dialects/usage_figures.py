"""Reading token figures that an upstream reports, and doubting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.types import Service, TokenCounts

MOST_TOKENS = 10**9
"""Of one call: a thousand times the largest context window there is. What is beyond is a mistake of the upstream."""


class AbsurdFigureError(Exception):
    """A figure that cannot be true."""


def count_of(source: Mapping[str, Any], name: str) -> int | None:
    """None when missing or null: that is not zero. Raises AbsurdFigureError for what is no count."""
    value = source.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise AbsurdFigureError
    return value


def details_of(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of figures inside `source`, empty when missing or null."""
    details = source.get(name)
    if details is None:
        return {}
    if not isinstance(details, dict):
        raise AbsurdFigureError
    return details


def service_of(reply: Mapping[str, Any], usage: Any) -> Service:
    """How the call was served; whatever of it isn't standard costs otherwise, or is unpriced.

    OpenAI says its tier beside the usage, Anthropic inside it, as it does the speed and where the model ran, which it
    bills at 1.1 times its prices for one region (docs.anthropic.com, "Data residency", read 2026-11).
    """
    figures = usage if isinstance(usage, dict) else {}
    tier = reply.get("service_tier") or figures.get("service_tier")
    words = (tier, figures.get("speed"), figures.get("inference_geo"))
    return Service(*(word if isinstance(word, str) else "" for word in words))


def merged_service(before: Service, now: Service) -> Service:
    """Of a stream, whose chunks say each a part."""
    return before if not any(now) else Service(*(word or old for word, old in zip(now, before, strict=True)))


def refuse_parts_above_totals(counts: TokenCounts) -> None:
    """Raises AbsurdFigureError. Audio may also be cached, so it is held against the total alone."""
    cached = counts.cache_read_tokens + counts.cache_write_5m_tokens + counts.cache_write_1h_tokens
    if max(cached, counts.audio_input_tokens) > counts.prompt_tokens:
        raise AbsurdFigureError
    if counts.reasoning_tokens + counts.audio_output_tokens > counts.completion_tokens:
        raise AbsurdFigureError
