"""How large a chat's prompt may be in tokens, and what else it may cost. Lenient: it never raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.base import Extent

# Parts that are text, whose tokens are bounded by their bytes. All others may be worth any number of tokens.
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
_CALLERS_OWN_TOOLS = frozenset({"function", "custom"})

_TEMPLATE_TOKENS = 256
"""What a chat template adds that is in no byte of the request: role markers, the model's own system prompt."""
_TOOL_TEMPLATE_TOKENS = 1024
"""What it adds where tools are described to the model (Anthropic documents up to 346, 2026)."""


def extent_of(body: Mapping[str, Any], raw_bytes: int) -> Extent:
    """A token is at least one byte of text, and JSON never makes a text shorter: the body's bytes are the bound."""
    if any(map(_is_of_unknown_size, _parts(body))):
        return Extent(None, _unbounded(body))
    has_tools = bool(body.get("tools") or body.get("functions"))
    return Extent(raw_bytes + _TEMPLATE_TOKENS + has_tools * _TOOL_TEMPLATE_TOKENS, _unbounded(body))


def _parts(body: Mapping[str, Any]) -> Iterator[Any]:
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            if message.get("audio"):
                yield message["audio"]
            content = message.get("content")
            yield from content if isinstance(content, list) else ()


def _is_of_unknown_size(part: Any) -> bool:
    return not isinstance(part, str) and not (isinstance(part, dict) and part.get("type") in _TEXT_PARTS)


def _unbounded(body: Mapping[str, Any]) -> str:
    if body.get("web_search_options") is not None:
        return "web searches"
    if body.get("prediction") is not None:
        # What of it is rejected costs as output does, beside the output maximum.
        return "a predicted output"
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in _CALLERS_OWN_TOOLS:
            return "tools that the provider runs"
    return ""
