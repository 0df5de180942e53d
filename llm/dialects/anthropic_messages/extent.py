"""How much a messages request may make the provider read and write, and its other costs.

Lenient: nothing here raises. `max_tokens` bounds everything in one reply, including thinking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.anthropic_messages.blocks import blocks_of, listed
from llm.dialects.anthropic_messages.tools import is_callers_own
from llm.dialects.base import Extent
from llm.dialects.openai_chat.extent import what_is_bought
from llm.dialects.openai_chat.fields import find_routing_fields
from llm.dialects.request_fields import output_maximum

# Tuples, not sets: a caller may send anything as a type, and looking up a list in a set raises. Blocks whose tokens are
# bounded by their bytes. All others may be worth any number of tokens.
_TEXT_BLOCKS = (
    *("text", "thinking", "redacted_thinking", "tool_use", "tool_result", "server_tool_use", "mcp_tool_use"),
    *("mcp_tool_result", "search_result", "tool_reference", "tool_search_tool_result", "compaction"),
)
_TEXT_SOURCES = ("text", "content")

_TEMPLATE_TOKENS = 256
"""What Anthropic adds beyond the request's bytes: role markers, its own system prompt."""
_TOOL_TEMPLATE_TOKENS = 1024
"""What it adds if tools are described to the model (it documents up to 346, 2026)."""
_TYPED_TOOL_TOKENS = 2048
"""The description of a tool with its own type, such as a computer, which isn't in the request (735, 2026)."""


def measure_extent(body: Mapping[str, Any], raw_bytes: int) -> Extent:
    """A token is at least one byte of text, and JSON never shortens a text: the body's bytes are the bound."""
    unbounded, compacts = _unbounded(body), _compacts(body)
    unbounded_output = "a compaction of the conversation" if compacts else ""
    if unbounded or compacts or find_routing_fields(body) or not all(_is_text(block) for _, block in blocks_of(body)):
        return Extent(None, unbounded, unbounded_output)
    return Extent(raw_bytes + _TEMPLATE_TOKENS + _tool_tokens(body.get("tools")), unbounded, unbounded_output)


def read_maximum(body: Mapping[str, Any]) -> int | None:
    """The reply's maximum of tokens; None if it is unbounded. Zero fills the cache and counts as one."""
    return output_maximum(body.get("max_tokens"))


def lowered_output(body: Mapping[str, Any], maximum: int) -> dict[str, Any]:
    """The fields to change so that the reply has at most this many tokens, including thinking."""
    changes: dict[str, Any] = {}
    asked = read_maximum(body)
    if asked is None or asked > maximum:
        changes["max_tokens"] = maximum
    thinking = body.get("thinking")
    thinking = thinking if isinstance(thinking, dict) else {}
    budget = thinking.get("budget_tokens")
    if changes and type(budget) is int and budget >= maximum:
        # It must be below the maximum, and more than half is left for the answer.
        changes["thinking"] = {**thinking, "budget_tokens": max(1, (maximum - 1) // 2)}
    return changes


def _is_text(block: Mapping[str, Any]) -> bool:
    if block.get("type") in _TEXT_BLOCKS:
        return True
    source = block.get("source")
    return block.get("type") == "document" and isinstance(source, dict) and source.get("type") in _TEXT_SOURCES


def _tool_tokens(tools: Any) -> int:
    typed = sum(isinstance(tool, dict) and tool.get("type") not in (None, "custom") for tool in listed(tools))
    return bool(listed(tools)) * _TOOL_TEMPLATE_TOKENS + typed * _TYPED_TOOL_TOKENS


def _unbounded(body: Mapping[str, Any]) -> str:
    if bought := what_is_bought(body):
        return bought
    tools = body.get("tools")
    has_own_alone = isinstance(tools, list) and all(map(is_callers_own, tools))
    return "" if tools is None or has_own_alone else "tools that the provider runs"


def _compacts(body: Mapping[str, Any]) -> bool:
    """Whether the conversation may be summarised, by additional sampling."""
    if body.get("compaction") is not None:
        return True
    management = body.get("context_management")
    edits = listed(management.get("edits")) if isinstance(management, dict) else []
    return any(isinstance(edit, dict) and str(edit.get("type")).startswith("compact") for edit in edits)
