"""A ChatRequest as the body of Anthropic's `POST /v1/messages`, API version 2023-06-01.

The later version takes no `temperature` and `top_p` from any model, so translated calls stay with this one; models
that refuse them still do. What OpenAI and Anthropic have in common by default (1 for both) is left out for their sake.
Not carried over: the name of a message's author. System and developer messages all go to the top, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from llm.errors import UpstreamRejected
from llm.types import ChatMessage, ChatRequest, ContentPart, TextPart, Tool, ToolCall, ToolChoice

API_VERSION = "2023-06-01"

DEFAULT_MAX_TOKENS = 4096
"""Anthropic wants a maximum in every request; this one goes up where the caller gave none."""

_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_DATA_URL = re.compile(r"data:(image/[a-z+.-]+);base64,", re.IGNORECASE)


def request_body(request: ChatRequest, *, is_stream: bool) -> bytes:
    """Raises UpstreamRejected, before anything is sent, for what Anthropic has no equivalent of."""
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": _messages(request.messages),
        "system": _system(request.messages),
        "temperature": _temperature(request.temperature),
        "top_p": None if request.top_p == 1 else request.top_p,
        "stop_sequences": list(request.stop),
        "tools": [_tool(tool) for tool in request.tools],
        "tool_choice": _tool_choice(request.tool_choice) if request.tools and request.tool_choice else None,
        "output_config": _output_config(request),
        "thinking": {"type": "disabled"} if request.reasoning_effort == "none" else None,
        "metadata": {"user_id": request.user} if request.user else None,
        "stream": True if is_stream else None,
    }
    return orjson.dumps({name: value for name, value in body.items() if value not in (None, [], {}, "")})


def _messages(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Alternating turns: the results of several tools must all stand in the one turn that follows their calls."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise UpstreamRejected("This model needs at least one message of the user.", param="messages")
    return turns


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id or ""}
        content = message.content if isinstance(message.content, str) else _content_blocks(message.content)
        return [{**result, "content": content} if content else result]
    parts = (TextPart(message.content),) if isinstance(message.content, str) else message.content
    return _content_blocks(parts) + [_tool_use(call) for call in message.tool_calls]


def _content_blocks(parts: Iterable[ContentPart]) -> list[dict[str, Any]]:
    """Empty texts are left out: Anthropic refuses them, and they say nothing."""
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, TextPart):
            blocks.append({"type": "image", "source": _image_source(part.url)})
        elif part.text:
            blocks.append({"type": "text", "text": part.text})
    return blocks


def _image_source(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head = _DATA_URL.match(url)
    if head is None:
        raise UpstreamRejected("This model takes images as an https URL or as base64 in a data URL.", param="messages")
    media_type = head.group(1).lower().replace("image/jpg", "image/jpeg")
    return {"type": "base64", "media_type": media_type, "data": url[head.end() :]}


def _tool_use(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise UpstreamRejected("The arguments of a tool call must be a JSON object for this model.", param="messages")
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _system(messages: Iterable[ChatMessage]) -> str:
    return "\n\n".join(m.text for m in messages if m.role in ("system", "developer") and m.text)


def _temperature(temperature: float | None) -> float | None:
    if temperature is not None and temperature > 1:
        raise UpstreamRejected("'temperature' goes from 0 to 1 for this model.", param="temperature")
    return None if temperature == 1 else temperature


def _tool(tool: Tool) -> dict[str, Any]:
    schema = {"type": "object", **tool.parameters}
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": schema}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": _TOOL_CHOICES[choice.mode]}
    if choice.mode == "tool":
        fields["name"] = choice.name
    if not choice.parallel and choice.mode != "none":
        fields["disable_parallel_tool_use"] = True
    return fields


def _output_config(request: ChatRequest) -> Mapping[str, Any]:
    config: dict[str, Any] = {}
    if request.reasoning_effort not in (None, "none"):
        config["effort"] = _effort(str(request.reasoning_effort))
    if request.response_format is not None:
        config["format"] = _output_format(request.response_format)
    return config


def _effort(reasoning_effort: str) -> str:
    if reasoning_effort not in _EFFORTS:
        known = ", ".join(["none", *_EFFORTS])
        raise UpstreamRejected(f"'reasoning_effort' must be one of {known}.", param="reasoning_effort")
    return _EFFORTS[reasoning_effort]


def _output_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """The schema alone: Anthropic has no name for it, and always keeps to it. Plain JSON mode it does not have."""
    if response_format["type"] != "json_schema":
        raise UpstreamRejected(
            "This model has no plain JSON mode: give the schema, with 'response_format' of the type 'json_schema'.",
            param="response_format",
        )
    return {"type": "json_schema", "schema": response_format["json_schema"]["schema"]}
