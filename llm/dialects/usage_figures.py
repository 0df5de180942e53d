"""Reads the token figures that an upstream reports, and checks their plausibility."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from llm.enums import Meter
from llm.types import Service, TokenCounts

MAX_TOKENS = 10**9
"""Per call: a thousand times the largest context window. Anything beyond is the upstream's mistake."""

WEB_SEARCHES = "web_searches"
EXTRA_METERS = (WEB_SEARCHES, "search_sources")
"""Units beside tokens that upstreams report, by our names."""
UNREPORTED_TOOLS = "unreported_tools"
"""Extra meter of calls whose provider ran tools without reporting their units: one per call."""

# Perplexity and xAI name these directly in the usage.
UNITS_IN_USAGE: Mapping[str, str] = {"num_search_queries": WEB_SEARCHES, "num_sources_used": "search_sources"}
_TOOL_COUNTERS = "server_tool_use"
# Web fetches only cost their tokens (platform.claude.com, "Web fetch tool", read 2026-11). OpenRouter repeats each of
# its tools in these totals, including searches; one that was requested and didn't run costs nothing.
_FREE_COUNTERS = ("web_fetch_requests", "tool_calls_requested")
_CALLS_IN_ALL, OTHER_CALLS = "tool_calls_executed", "tool_calls"
OTHER_UNITS = "other_tool_units"
_DIGITS = re.compile(r"[0-9]{1,10}(?:\.0{1,10})?", re.ASCII)
_METER_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_OTHER_RATES = frozenset((*Meter.values, "requests"))
"""Names with another meaning in a price."""
_MAX_COUNTERS = 20


class AbsurdFigureError(Exception):
    """A figure that cannot be true."""


def read_figures(
    usage: Any, counts_of: Callable[[Mapping[str, Any]], TokenCounts | None]
) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
    """(counts, absurd): both None without usage, or if `counts_of` finds too little in it.

    counts_of: reads a usage object; raises AbsurdFigureError. absurd: the object as received, if a figure in it is
    negative, not a whole number, beyond MAX_TOKENS, or a part is larger than its total.
    """
    if usage is None or usage == {}:
        return None, None
    if not isinstance(usage, dict):
        return None, {"usage": usage}
    try:
        return counts_of(usage), None
    except AbsurdFigureError:
        return None, usage


def read_count(source: Mapping[str, Any], name: str) -> int | None:
    """None if missing or null, which isn't zero. Raises AbsurdFigureError for anything that isn't a count."""
    value = source.get(name)
    if value is None:
        return None
    count = whole_number(value)
    if count is None or not 0 <= count <= MAX_TOKENS:
        raise AbsurdFigureError
    return count


def whole_number(value: Any) -> int | None:
    """A number in any form in which servers write it: 12, 12.0, "12". None for anything else."""
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value.partition(".")[0])
    return value if type(value) is int else None


def read_details(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of figures inside `source`, empty if missing or null."""
    details = source.get(name)
    if details is None:
        return {}
    if not isinstance(details, dict):
        raise AbsurdFigureError
    return details


def read_tool_units(usage: Mapping[str, Any]) -> dict[str, int]:
    """Units of tools that the provider has run, by our meters, from `server_tool_use` (Anthropic, OpenRouter).

    An unknown counter keeps its name, so that its units have no rate and the call is unpriced; one that isn't a count,
    or whose name can't be in a price, is one unit of `other_tool_units`. Zeros are omitted: they need no rate. Raises
    AbsurdFigureError for searches that aren't a count, and for implausibly many counters.
    """
    counters = read_details(usage, _TOOL_COUNTERS)
    if not counters:
        return {}
    if len(counters) > _MAX_COUNTERS:
        raise AbsurdFigureError
    searches = read_count(counters, "web_search_requests") or 0
    units = {WEB_SEARCHES: searches}
    for name, value in counters.items():
        if name == _CALLS_IN_ALL:
            # The searches, and anything else without a counter of its own.
            units[OTHER_CALLS] = max(0, (read_count(counters, name) or 0) - searches)
        elif name not in ("web_search_requests", *_FREE_COUNTERS):
            meter, number = _unknown_units(name, value)
            units[meter] = units.get(meter, 0) + number
    return {meter: number for meter, number in units.items() if number}


def _unknown_units(name: str, value: Any) -> tuple[str, int]:
    is_meter = _METER_NAME.fullmatch(name) is not None and name not in _OTHER_RATES
    units = whole_number(value)
    if is_meter and units is not None and 0 <= units <= MAX_TOKENS:
        return name, units
    return OTHER_UNITS, 1 if value else 0


def reports_tool_units(usage: Any) -> bool:
    """Whether a usage reports the units of its provider's own tools, even if zero."""
    if not isinstance(usage, dict):
        return False
    counters = usage.get(_TOOL_COUNTERS)
    has_counters = isinstance(counters, dict) and bool(counters)
    return has_counters or any(usage.get(name) is not None for name in UNITS_IN_USAGE)


def read_service(reply: Mapping[str, Any], usage: Any) -> Service:
    """How the call was served; anything that isn't standard has another price, or is unpriced.

    OpenAI reports its tier beside the usage, Anthropic inside it, together with speed and region. One region costs 1.1
    times the price (docs.anthropic.com, "Data residency", read 2026-11).
    """
    figures = usage if isinstance(usage, dict) else {}
    tier = reply.get("service_tier") or figures.get("service_tier")
    words = (tier, figures.get("speed"), figures.get("inference_geo"))
    return Service(*(word if isinstance(word, str) else "" for word in words))


def merged_service(before: Service, now: Service) -> Service:
    """For a stream, whose chunks each report a part; empty parts of `now` keep the earlier ones."""
    return before if not any(now) else Service(*(word or old for word, old in zip(now, before, strict=True)))


def refuse_parts_above_totals(counts: TokenCounts) -> None:
    """Raises AbsurdFigureError. Audio may also be cached, so it is compared only with the total."""
    cached = counts.cache_read_tokens + counts.cache_write_5m_tokens + counts.cache_write_1h_tokens
    if max(cached, counts.audio_input_tokens) > counts.prompt_tokens:
        raise AbsurdFigureError
    if counts.reasoning_tokens + counts.audio_output_tokens > counts.completion_tokens:
        raise AbsurdFigureError
