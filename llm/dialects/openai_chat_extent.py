"""How large a chat's prompt may be in tokens, and what else it may cost. Lenient: it never raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.base import Extent
from llm.dialects.openai_chat_fields import FEE_FIELDS, routing_fields_of

# Tuples, not sets: what a caller sends as a type may be anything, and to ask a set for a list raises.
# Parts that are text, whose tokens are bounded by their bytes. All others may be worth any number of tokens.
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_CALLERS_OWN_TOOLS = ("function", "custom")

_TEMPLATE_TOKENS = 256
"""What a chat template adds that is in no byte of the request: role markers, the model's own system prompt."""
_TOOL_TEMPLATE_TOKENS = 1024
"""What it adds where tools are described to the model (Anthropic documents up to 346, 2026)."""


def extent_of(body: Mapping[str, Any], raw_bytes: int) -> Extent:
    """A token is at least one byte of text, and JSON never makes a text shorter: the body's bytes are the bound."""
    messages = body.get("messages")
    if isinstance(messages, list) and any(map(_is_of_unknown_size, messages)):
        return Extent(None, _unbounded(body))
    has_tools = bool(body.get("tools") or body.get("functions"))
    return Extent(raw_bytes + _TEMPLATE_TOKENS + has_tools * _TOOL_TEMPLATE_TOKENS, _unbounded(body))


def _is_of_unknown_size(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    audio, content = message.get("audio"), message.get("content")
    if audio and not _is_text(audio):
        return True
    return isinstance(content, list) and not all(map(_is_text, content))


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type") in _TEXT_PARTS)


def _unbounded(body: Mapping[str, Any]) -> str:
    for name, bought in FEE_FIELDS.items():
        # False: `enable_search` is a switch.
        if body.get(name) is not None and body[name] is not False:
            return bought
    if routing_fields_of(body):
        return "a choice of models or providers"
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in _CALLERS_OWN_TOOLS:
            return "tools that the provider runs"
    return ""
