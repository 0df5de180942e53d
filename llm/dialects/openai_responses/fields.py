"""The fields of a request for a response: known ones, and those that name objects stored at a provider.

Source, read 2026-11: openai 3.54 (`types/responses/`). vLLM accepts a response's own id as `request_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.base import KeptResponse
from llm.dialects.kept_objects import refuse_kept, refuse_kept_objects
from llm.dialects.openai_chat.fields import FEE_FIELDS, ROUTING_FIELDS, STORED_PROMPT_FIELDS, TOKEN_FEE_FIELDS
from llm.dialects.openai_chat.output import OUTPUT_FIELDS, OUTPUT_MEMBERS
from llm.dialects.request_fields import Shape, shape
from llm.errors import InvalidRequest

_FIELDS = (
    *("access_programs", "background", "background_options", "context_management", "conversation", "image", "include"),
    *("input", "instructions", "max_output_tokens", "max_tool_calls", "messages", "metadata", "model", "moderation"),
    *("parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options"),
    *("prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options"),
    *("temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    *("speed", "inference_geo", "request_id"),
)
_REFERENCE = "item_reference"
_CONTENT: Mapping[Any, str] = {
    None: "content",
    "message": "content",
    "image_generation_call": "result",
    "compaction": "encrypted_content",
    "compaction_summary": "encrypted_content",
    "mcp_list_tools": "tools",
}
"""Type of an item -> the member that an item with an id must have: without it, it refers to the stored one."""
_SAYS_NOTHING = frozenset(("id", "type", "status", "role", "phase"))
_REASONING = "reasoning"

_PART = shape("type", "text", "refusal", "file_id", "file_data", "file_url", "image_url", "filename")
_ITEM = shape(
    *("id", "type", "role", "status", "call_id", "name", "arguments", "input", "container_id", "file_id"),
    *("encrypted_content", "summary"),
    content=_PART,
    output=_PART,
)
_TOOL = shape(
    *("type", "name", "description", "parameters", "strict", "vector_store_ids", "container", "server_url", "model")
)
REQUEST = Shape(
    frozenset((*_FIELDS, *ROUTING_FIELDS, *FEE_FIELDS, *STORED_PROMPT_FIELDS, *TOKEN_FEE_FIELDS, *OUTPUT_FIELDS)),
    {
        **{name: Shape(members) for name, members in OUTPUT_MEMBERS.items()},
        "input": _ITEM,
        "instructions": _ITEM,
        "tools": _TOOL,
        "stream_options": shape("include_obfuscation"),
        "prompt_cache_options": shape("comparison_response_id"),
        "moderation": shape("model"),
    },
)


def kept_responses(body: Mapping[str, Any]) -> tuple[KeptResponse, ...]:
    """Raises InvalidRequest for an id that isn't a text."""
    options = body.get("prompt_cache_options")
    named = {
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_options.comparison_response_id": options.get("comparison_response_id")
        if isinstance(options, dict)
        else None,
    }
    for param, value in named.items():
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"'{param}' must be the id of a response.", param=param)
    return tuple(KeptResponse(param, value) for param, value in named.items() if value is not None)


def refuse_misdirected(body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for the body of another endpoint, or a request for a background response."""
    if "messages" in body and "input" not in body:
        raise InvalidRequest(
            "'messages' belongs to chat completions: send this request to POST /v1/chat/completions, or send its"
            " content as 'input'.",
            param="messages",
        )
    for name in ("background", "background_options"):
        if body.get(name) not in (None, False):
            raise InvalidRequest(
                f"'{name}' is not supported: the usage of a response generated in the background arrives too late to"
                " be billed. Send the request without it, and stream the response.",
                param=name,
            )


def refuse_kept_by_name(raw: bytes, body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for the name of any object stored at the provider, except a response."""
    if body.get("request_id") is not None:
        raise InvalidRequest("'request_id' can't be set: each response gets an id of its own.", param="request_id")
    if body.get("prompt") is not None:
        refuse_kept("prompt")
    for name in ("input", "instructions"):
        items = body.get(name)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict) and _is_reference(item):
                refuse_kept(f"{name}[{index}].id")
    refuse_kept_objects(raw, body)


def _is_reference(item: Mapping[str, Any]) -> bool:
    """Whether an item refers to a stored one. Others repeat their content, whatever their id."""
    if item.get("id") is None:
        return False
    kind = item.get("type")
    if isinstance(kind, dict | list):
        return True
    if kind == _REFERENCE:
        return True
    if kind in _CONTENT:
        return item.get(_CONTENT[kind]) in (None, "")
    # SDKs return reasoning without its content: docs/decisions/0032.
    return kind != _REASONING and not any(value for name, value in item.items() if name not in _SAYS_NOTHING)
