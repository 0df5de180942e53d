"""Upper bounds for a chat's prompt in tokens, and its other costs. Lenient: nothing here raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.base import Extent
from llm.dialects.openai_chat.fields import (
    FEE_FIELDS,
    SEARCH_FIELD,
    STORED_PROMPT_FIELDS,
    TOKEN_FEE_FIELDS,
    TOOL_KEYS,
)
from llm.dialects.usage_figures import UNREPORTED_TOOLS, WEB_SEARCHES

# Tuples, not sets: a caller may send anything as a type, and looking up a list in a set raises. Parts that are text,
# whose tokens are bounded by their bytes. All others may be worth any number of tokens.
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_CALLERS_OWN_TOOLS = ("function", "custom")
_WRITTEN = ("text", "audio")

TEMPLATE_TOKENS = 256
"""What a chat template adds beyond the request's bytes: role markers, the model's own system prompt."""
TOOL_TEMPLATE_TOKENS = 1024
"""What it adds if tools are described to the model (Anthropic documents up to 346, 2026)."""


def measure_extent(body: Mapping[str, Any], raw_bytes: int) -> Extent:
    """A token is at least one byte of text, and JSON never shortens a text: the body's bytes are the bound."""
    messages = body.get("messages")
    if has_stored_prompt(body) or (isinstance(messages, list) and any(map(_is_of_unknown_size, messages))):
        return Extent(None, _unbounded(body), unbounded_output(body))
    has_tools = bool(body.get("tools") or body.get("functions"))
    input_tokens = raw_bytes + TEMPLATE_TOKENS + has_tools * TOOL_TEMPLATE_TOKENS
    return Extent(input_tokens, _unbounded(body), unbounded_output(body))


def has_stored_prompt(body: Mapping[str, Any]) -> bool:
    return any(body.get(name) is not None for name in STORED_PROMPT_FIELDS)


def tool_meters(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The extra meters of tools that the provider runs, one unit per call if the reply reports none.

    `web_search_options` is one search: a call with it is charged for one, and never less. How often any other tool ran
    is unknown.
    """
    bought = {name for name, _ in _bought(body, FEE_FIELDS)}
    meters = (WEB_SEARCHES,) if SEARCH_FIELD in bought else ()
    has_others = not bought <= {SEARCH_FIELD} or _has_providers_tools(body)
    return (*meters, UNREPORTED_TOOLS) if has_others else meters


def _is_of_unknown_size(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    audio, content = message.get("audio"), message.get("content")
    if audio and not _is_text(audio):
        return True
    return isinstance(content, list) and not all(map(_is_text, content))


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type") in TEXT_PARTS)


def what_is_bought(body: Mapping[str, Any]) -> str:
    """What a field buys beside tokens, without a bound; "" for nothing."""
    return next((bought for _, bought in _bought(body, FEE_FIELDS)), "")


def _unbounded(body: Mapping[str, Any]) -> str:
    if bought := what_is_bought(body):
        return bought
    return "tools that the provider runs" if _has_providers_tools(body) else ""


def unbounded_output(body: Mapping[str, Any]) -> str:
    """What a field requests whose tokens have no bound; "" for nothing."""
    for _, bought in _bought(body, TOKEN_FEE_FIELDS):
        return bought
    modalities = body.get("modalities")
    if modalities is not None and not (isinstance(modalities, list) and all(word in _WRITTEN for word in modalities)):
        return "output other than text and audio"
    return ""


def _bought(body: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if body.keys().isdisjoint(fields):
        return
    for name, bought in fields.items():
        # False has no effect: `enable_search` is a switch.
        if body.get(name) is not None and body[name] is not False:
            yield name, bought


def _has_providers_tools(body: Mapping[str, Any]) -> bool:
    return not _are_callers_own(body.get("tools")) or _chooses_providers_tool(body.get("tool_choice"))


def _are_callers_own(tools: Any) -> bool:
    if tools is None:
        return True
    return isinstance(tools, list) and all(
        isinstance(tool, dict) and tool.get("type") in _CALLERS_OWN_TOOLS and tool.keys() <= TOOL_KEYS for tool in tools
    )


def _chooses_providers_tool(choice: Any) -> bool:
    """Some servers run the chosen tool even without a list of tools."""
    return isinstance(choice, dict) and choice.get("type") not in (*_CALLERS_OWN_TOOLS, "allowed_tools")
