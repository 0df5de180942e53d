"""The usage of a response as TokenCounts.

Sources, read 2026-11: openai 3.54 (`types/responses/response_usage.py`, `types/responses/response.py`: `tool_usage`);
openai.com/api/pricing, "Built-in tools": a search that opens a page, or searches within one, costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from llm.dialects.openai_chat.usage import UsageNames, counts_by
from llm.dialects.openai_responses.text import items_of
from llm.dialects.usage_figures import (
    UNREPORTED_TOOLS,
    WEB_SEARCHES,
    read_count,
    read_details,
    read_figures,
    reports_tool_units,
)
from llm.types import TokenCounts

_NAMES = UsageNames("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")
_SEARCH_CALL = "web_search_call"
_FREE_SEARCH_ACTIONS = ("open_page", "find_in_page", "find")
_FREE_CALLS = (
    *("function_call", "custom_tool_call", "local_shell_call", "apply_patch_call", "computer_call", "mcp_call"),
    *("tool_search_call"),
)


class ResponseUsage(NamedTuple):
    """counts, absurd: see `read_figures`. reports_tools: everything that the provider has run is in the counts."""

    counts: TokenCounts | None
    absurd: Mapping[str, Any] | None
    reports_tools: bool


def read_usage(response: Mapping[str, Any]) -> ResponseUsage:
    """response: the object, complete or from a stream's last event."""
    counts, absurd = read_figures(response.get("usage"), partial(_counts, response))
    runs_unreported = counts is not None and UNREPORTED_TOOLS in counts.extra_meters
    is_told = isinstance(response.get("output"), list) or reports_tool_units(response.get("usage"))
    return ResponseUsage(counts, absurd, reports_tools=counts is not None and is_told and not runs_unreported)


def _counts(response: Mapping[str, Any], usage: Mapping[str, Any]) -> TokenCounts | None:
    counts = counts_by(_NAMES, usage)
    if counts is None:
        return None
    units = {WEB_SEARCHES: _searches(response), UNREPORTED_TOOLS: int(any(map(_costs_unknown, _calls(response))))}
    ran = {name: number for name, number in units.items() if number}
    return replace(counts, extra_meters={**ran, **counts.extra_meters})


def _searches(response: Mapping[str, Any]) -> int:
    """As counted by the response, otherwise the number of its calls that searched."""
    told = read_count(read_details(read_details(response, "tool_usage"), "web_search"), "num_requests")
    return sum(map(_is_search, _calls(response))) if told is None else told


def _calls(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [item for item in items_of(response.get("output")) if str(item.get("type")).endswith("_call")]


def _is_search(call: Mapping[str, Any]) -> bool:
    action = call.get("action")
    kind = action.get("type") if isinstance(action, dict) else None
    return call.get("type") == _SEARCH_CALL and kind not in _FREE_SEARCH_ACTIONS


def _costs_unknown(call: Mapping[str, Any]) -> bool:
    """Whether the provider has run a call and charges for it in units that it doesn't report."""
    environment = call.get("environment")
    if call.get("type") == "shell_call" and isinstance(environment, dict) and environment.get("type") == "local":
        return False
    return call.get("type") not in (_SEARCH_CALL, *_FREE_CALLS)
