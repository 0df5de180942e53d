"""The fields of a request for a response by what they do: those we know, and those that name what a provider keeps.

The provider knows one organisation: ours. So whatever it keeps, a file or a conversation, is refused by name, since
nobody can say which of our accounts made it. Responses are the exception: the books know whose they are.

Sources, read 2026-11: openai 3.54 (`types/responses/`). Of a `code_interpreter_call` OpenAI's guide says that the model
may go on in its container ("Code Interpreter", "Auto mode"), so its `container_id` opens that container.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from llm.dialects.base import KeptResponse
from llm.dialects.openai_chat.fields import FEE_FIELDS, ROUTING_FIELDS
from llm.dialects.request_fields import shape
from llm.errors import InvalidRequest

MAXIMUM = "max_output_tokens"

_FIELDS = (
    *("access_programs", "background", "background_options", "context_management", "conversation", "image", "include"),
    *("input", "instructions", "max_output_tokens", "max_tool_calls", "messages", "metadata", "model", "moderation"),
    *("parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options"),
    *("prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options"),
    *("temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    *("speed", "inference_geo"),
)
_KEPT_MEMBERS = frozenset(
    (
        *("file_id", "file_ids", "vector_store_id", "vector_store_ids", "container_id", "skill_id", "tunnel_id"),
        *("conversation_id", "continuation_id"),
    )
)
"""Members anywhere in the input or the tools that name something kept at the provider."""
_CALLERS_OBJECTS = frozenset(("parameters", "schema", "input_schema", "output_schema", "headers", "attributes"))
"""Members whose own members are named by the caller."""
_REFERENCE_KEYS = frozenset(("id", "type", "status"))

_PART = shape("type", "text", "refusal", "file_id", "file_data", "file_url", "image_url", "filename")
_ITEM = shape(
    *("id", "type", "role", "status", "call_id", "name", "arguments", "input", "container_id", "file_id"),
    *("encrypted_content", "summary"),
    content=_PART,
    output=_PART,
)
_TOOL = shape("type", "name", "description", "parameters", "strict", "vector_store_ids", "container", "server_url")
REQUEST = shape(
    *(*_FIELDS, *ROUTING_FIELDS, *FEE_FIELDS),
    input=_ITEM,
    tools=_TOOL,
    stream_options=shape("include_obfuscation"),
)


def kept_responses(body: Mapping[str, Any]) -> tuple[KeptResponse, ...]:
    """Raises InvalidRequest for an id that is no text."""
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
    """Raises InvalidRequest for what is no request for a response, or for one in the background."""
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


def refuse_kept_objects(body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for whatever names something that the provider keeps, but for a response."""
    for name in ("conversation", "prompt"):
        if body.get(name) is not None:
            _refuse(name)
    items = body.get("input")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("id") is not None and item.keys() <= _REFERENCE_KEYS:
            _refuse(f"input[{index}].id")
    for name in ("input", "tools", "tool_choice"):
        for param in _kept_members(body.get(name), name):
            _refuse(param)


def _kept_members(value: Any, param: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, each in enumerate(value):
            if isinstance(each, dict | list):
                yield from _kept_members(each, f"{param}[{index}]")
        return
    if not isinstance(value, dict):
        return
    for name, each in value.items():
        path = f"{param}.{name}"
        # A container's id stands where else an object says what kind of it is to be made.
        if (name in _KEPT_MEMBERS and each) or (name == "container" and isinstance(each, str)):
            yield path
        elif isinstance(each, dict | list) and name not in _CALLERS_OBJECTS:
            yield from _kept_members(each, path)


def _refuse(param: str) -> NoReturn:
    raise InvalidRequest(
        f"'{param}' names something that is kept at the provider, and the gateway can't tell which account made it."
        " Send the content itself.",
        param=param,
    )
