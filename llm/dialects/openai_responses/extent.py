"""Upper bounds for a request's prompt in tokens, and its other costs. Lenient: nothing here raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.base import Extent
from llm.dialects.openai_chat.extent import (
    TEMPLATE_TOKENS,
    TEXT_PARTS,
    TOOL_TEMPLATE_TOKENS,
    has_stored_prompt,
    unbounded_output,
    what_is_bought,
)
from llm.dialects.openai_responses.text import items_of
from llm.dialects.usage_figures import UNREPORTED_TOOLS, WEB_SEARCHES

# Tuples, not sets: a caller may send anything as a type, and looking up a list in a set raises.
_BOUNDED_TOOLS = ("function", "custom", "apply_patch")
"""Tools that the caller runs; a call of one ends the response."""
FREE_TOOLS = (*_BOUNDED_TOOLS, "local_shell", "computer", "computer_use_preview", "mcp", "tool_search")
"""Tools that cost only their tokens."""
SEARCH_TOOLS = "web_search"
"""Prefix of the types of all its versions."""

_TOOL_KEYS = frozenset(
    (
        *("type", "name", "description", "parameters", "strict", "format", "tools", "defer_loading"),
        *("allowed_callers", "output_schema", "cache_control"),
    )
)
"""Of a tool that the caller runs."""

_TEXT_ITEMS = (
    *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
    *("apply_patch_call", "apply_patch_call_output", "local_shell_call", "local_shell_call_output"),
)


def measure_extent(body: Mapping[str, Any], raw_bytes: int) -> Extent:
    """A token is at least one byte of text, and JSON never shortens a text: the body's bytes are the bound."""
    compaction = "" if not body.get("context_management") else "a compaction of the conversation"
    output = compaction or unbounded_output(body)
    if compaction or _is_of_unknown_size(body):
        return Extent(None, _unbounded(body), output)
    input_tokens = raw_bytes + TEMPLATE_TOKENS + bool(body.get("tools")) * TOOL_TEMPLATE_TOKENS
    return Extent(input_tokens, _unbounded(body), output)


def tool_meters(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The extra meters of tools that the provider runs, if no complete response says which of them ran."""
    kinds = [*tool_types(body.get("tools")), *_chosen_tool(body)]
    searches = [kind for kind in kinds if is_search(kind)]
    others = any(kind not in FREE_TOOLS and not is_search(kind) for kind in kinds)
    has_fees = others or bool(what_is_bought(body))
    return ((WEB_SEARCHES,) if searches else ()) + ((UNREPORTED_TOOLS,) if has_fees else ())


def tool_types(tools: Any) -> Iterator[str]:
    """Types of the tools, including those of a namespace; "" for one without a type."""
    for tool in items_of(tools):
        kind = tool.get("type")
        if kind == "namespace":
            yield from tool_types(tool.get("tools"))
        else:
            yield _tool_type(tool, kind)


def is_search(kind: str) -> bool:
    return kind.startswith(SEARCH_TOOLS)


def _tool_type(tool: Mapping[str, Any], kind: Any) -> str:
    """A shell on the caller's own machine is a local one, whatever its type."""
    environment = tool.get("environment")
    if kind == "shell" and isinstance(environment, dict) and environment.get("type") == "local":
        return "local_shell"
    return kind if isinstance(kind, str) else ""


def _is_of_unknown_size(body: Mapping[str, Any]) -> bool:
    if has_stored_prompt(body):
        return True
    asked = [body.get(name) for name in ("input", "instructions")]
    return any(isinstance(items, list) and not all(map(_is_text_item, items)) for items in asked)


def _is_text_item(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    kind = item.get("type")
    if kind == "reasoning":
        # Without its encrypted form it is loaded from where the provider stores it.
        return isinstance(item.get("encrypted_content"), str)
    is_known = kind in _TEXT_ITEMS or (kind is None and "role" in item)
    return is_known and all(_is_text(item.get(name)) for name in ("content", "output"))


def _is_text(content: Any) -> bool:
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    return all(isinstance(part, dict) and part.get("type") in TEXT_PARTS for part in content)


def _unbounded(body: Mapping[str, Any]) -> str:
    if bought := what_is_bought(body):
        return bought
    tools = body.get("tools")
    kinds = [*tool_types(tools), *_chosen_tool(body)]
    if any(map(is_search, kinds)):
        return "web searches"
    is_bounded = _are_callers_own(tools) and all(kind in _BOUNDED_TOOLS for kind in kinds)
    return "" if is_bounded else "tools that the provider runs"


def _are_callers_own(tools: Any) -> bool:
    """Whether all are the caller's own tools; an unknown member may make one a tool that the provider runs."""
    if tools is None:
        return True
    return isinstance(tools, list) and all(
        isinstance(tool, dict)
        and tool.keys() <= _TOOL_KEYS
        and (tool.get("type") != "namespace" or _are_callers_own(tool.get("tools")))
        for tool in tools
    )


def _chosen_tool(body: Mapping[str, Any]) -> Iterator[str]:
    """Some servers run the chosen tool even without a list of tools."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") != "allowed_tools":
        yield _tool_type(choice, choice.get("type"))
