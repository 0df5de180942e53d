"""A ChatRequest as the body of Anthropic's `POST /v1/messages`, API version 2023-06-01.

The later version takes no `temperature` and `top_p` from any model, so translated calls stay with this one. What OpenAI
and Anthropic have in common by default (1 for both) is left out. Not carried over: the name of a message's author, and
samplers that the model would refuse. System and developer messages all go to the top, in their order. Texts and stop
sequences without a visible character are left out: Anthropic refuses them, and they say nothing.

Thinking goes back first in its turn. Anthropic refuses thinking in a tool loop that began without it, so if the caller
has dropped the thinking, the request is sent with thinking switched off. So it is if the caller has returned thinking
within a loop and no longer asks for an effort, which would be refused too, the thinking is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

import orjson

from llm.dialects.anthropic_messages.samplers import samplers
from llm.dialects.anthropic_messages.schema import closed_schema
from llm.dialects.anthropic_messages.tool_names import allowed_name
from llm.dialects.thinking import BLOCK_KINDS, thinking_block
from llm.errors import UpstreamRejected
from llm.types import ChatMessage, ChatRequest, ContentPart, FilePart, TextPart, Tool, ToolCall, ToolChoice

API_VERSION = "2023-06-01"

DEFAULT_MAX_TOKENS = 4096
"""Anthropic wants a maximum in every request; this one goes up where the caller gave none."""

_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_PDF_URL = "data:application/pdf;base64,"
_ONLY_JSON = "Answer with one JSON object, and with nothing before or after it."
"""Anthropic has no JSON mode without a schema."""
_DATA_URL = re.compile(r"data:(image/[a-z+.-]+);base64,", re.IGNORECASE)


def request_body(request: ChatRequest, *, is_stream: bool) -> bytes:
    """Raises UpstreamRejected, before anything is sent, for what Anthropic has no equivalent of."""
    turns = _messages(request.messages)
    may_think = _may_think(request, turns)
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": turns if may_think else _without_thinking(turns),
        "system": _system(request),
        **samplers(
            request.model,
            temperature=_temperature(request.temperature),
            top_p=None if request.top_p == 1 else request.top_p,
        ),
        "stop_sequences": [text for text in request.stop if text.strip()],
        "tools": [_tool(tool) for tool in request.tools],
        "tool_choice": _tool_choice(request.tool_choice) if request.tools and request.tool_choice else None,
        "output_config": _output_config(request),
        "thinking": None if may_think or request.reasoning_effort is None else {"type": "disabled"},
        "metadata": {"user_id": _user_id(request.user)} if request.user else None,
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
        raise UpstreamRejected("This model needs at least one user message.", param="messages")
    if turns[-1]["role"] == "assistant" and (last := turns[-1]["content"][-1])["type"] == "text":
        # It goes on from here, and must not from a space.
        last["text"] = last["text"].rstrip()
    return turns


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": allowed_name(message.tool_call_id or "")}
        content = message.content if isinstance(message.content, str) else _content_blocks(message.content)
        return [{**result, "content": content} if content else result]
    parts = (TextPart(message.content),) if isinstance(message.content, str) else message.content
    said = _content_blocks(parts) + [_tool_use(call) for call in message.tool_calls]
    # Anthropic refuses a turn that consists of thinking alone.
    return [thinking_block(each) for each in message.thinking if each.can_return and said] + said


def _may_think(request: ChatRequest, turns: list[dict[str, Any]]) -> bool:
    """To Anthropic a whole tool loop is one assistant turn: it starts with thinking and is continued with thinking, or
    has none at all. Without an effort most models don't think, and refuse a loop that has; those that always think take
    one that has none, but wouldn't let themselves be told not to.
    """
    if request.reasoning_effort == "none":
        return False
    if not _has_results(turns[-1]):
        return True
    loop = takewhile(lambda turn: turn["role"] == "assistant" or _has_results(turn), reversed(turns))
    said = [turn["content"] for turn in loop if turn["role"] == "assistant"]
    if request.reasoning_effort is None:
        return all(block["type"] not in BLOCK_KINDS for content in said for block in content)
    return all(content[0]["type"] in BLOCK_KINDS for content in said[-1:])


def _has_results(turn: Mapping[str, Any]) -> bool:
    return any(block["type"] == "tool_result" for block in turn["content"])


def _without_thinking(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With thinking switched off, the last turn must not have any (Anthropic's docs, "Toggling thinking modes")."""
    return [
        {**turn, "content": [block for block in turn["content"] if block["type"] not in BLOCK_KINDS]} for turn in turns
    ]


def _content_blocks(parts: Iterable[ContentPart]) -> list[dict[str, Any]]:
    return [_block(part) for part in parts if not isinstance(part, TextPart) or part.text.strip()]


def _block(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        block: dict[str, Any] = {"type": "text", "text": part.text}
    elif isinstance(part, FilePart):
        block = {"type": "document", "source": _document_source(part.url)}
        if part.filename:
            block["title"] = part.filename
    else:
        block = {"type": "image", "source": _image_source(part.url)}
    return _with_cache_hint(block, part.cache)


def _with_cache_hint(holder: dict[str, Any], hint: Mapping[str, Any] | None) -> dict[str, Any]:
    return holder if hint is None else {**holder, "cache_control": dict(hint)}


def _document_source(url: str) -> dict[str, str]:
    if not url.lower().startswith(_PDF_URL):
        raise UpstreamRejected("This model takes files as PDFs in base64, in a data URL.", param="messages")
    return {"type": "base64", "media_type": "application/pdf", "data": url[len(_PDF_URL) :]}


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
    return {"type": "tool_use", "id": allowed_name(call.id), "name": allowed_name(call.name), "input": arguments}


def _system(request: ChatRequest) -> str | list[dict[str, Any]]:
    """A text; blocks where one of them has a cache hint."""
    messages = [message for message in request.messages if message.role in ("system", "developer")]
    wants_json = (request.response_format or {}).get("type") == "json_object"
    parts = [part for message in messages if not isinstance(message.content, str) for part in message.content]
    if any(part.cache for part in parts):
        blocks = [block for message in messages for block in _blocks(message) if block["type"] == "text"]
        return [*blocks, {"type": "text", "text": _ONLY_JSON}] if wants_json else blocks
    texts = [message.text for message in messages if message.text.strip()]
    return "\n\n".join([*texts, _ONLY_JSON] if wants_json else texts)


def _user_id(user: str) -> str:
    """Anthropic refuses e-mail addresses, telephone numbers and long texts, and asks for an opaque id."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


def _temperature(temperature: float | None) -> float | None:
    if temperature is not None and temperature > 1:
        raise UpstreamRejected("'temperature' must be between 0 and 1 for this model.", param="temperature")
    return None if temperature == 1 else temperature


def _tool(tool: Tool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", **tool.parameters}
    sent: dict[str, Any] = {"name": allowed_name(tool.name)}
    if tool.description:
        sent["description"] = tool.description
    if tool.is_strict:
        schema, sent["strict"] = closed_schema(schema, "tools"), True
    return _with_cache_hint({**sent, "input_schema": schema}, tool.cache)


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": _TOOL_CHOICES[choice.mode]}
    if choice.mode == "tool":
        fields["name"] = allowed_name(choice.name or "")
    if not choice.parallel and choice.mode != "none":
        fields["disable_parallel_tool_use"] = True
    return fields


def _output_config(request: ChatRequest) -> Mapping[str, Any]:
    config: dict[str, Any] = {}
    if request.reasoning_effort not in (None, "none"):
        config["effort"] = _effort(str(request.reasoning_effort))
    if request.response_format is not None and request.response_format["type"] == "json_schema":
        config["format"] = _output_format(request.response_format)
    return config


def _effort(reasoning_effort: str) -> str:
    if reasoning_effort not in _EFFORTS:
        known = ", ".join(["none", *_EFFORTS])
        raise UpstreamRejected(f"'reasoning_effort' must be one of {known}.", param="reasoning_effort")
    return _EFFORTS[reasoning_effort]


def _output_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """The schema alone: Anthropic has no name for it, and always keeps to it."""
    schema = response_format["json_schema"]["schema"]
    return {"type": "json_schema", "schema": closed_schema(schema, "response_format.json_schema.schema")}
