"""A ChatRequest as the body of Anthropic's `POST /v1/messages`, API version 2023-06-01.

The later version accepts no `temperature` and `top_p` from any model, so translated calls stay with this one. Common
defaults of OpenAI and Anthropic (1 for both) are omitted. Not carried over: the name of a message's author, and
samplers that the model would refuse. System and developer messages are joined at the top, in order. Texts and stop
sequences without a visible character are omitted: Anthropic refuses them, and they mean nothing.

Thinking comes first in its turn; `reasoning` says when it is switched on or off.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from llm.dialects.anthropic_messages.models import ClaudeModel, find_model
from llm.dialects.anthropic_messages.reasoning import plan_reasoning, samplers
from llm.dialects.anthropic_messages.schema import closed_schema
from llm.dialects.anthropic_messages.tool_names import allowed_name
from llm.dialects.thinking import BLOCK_KINDS, thinking_block
from llm.errors import UpstreamRejected
from llm.types import ChatMessage, ChatRequest, ContentPart, FilePart, TextPart, Tool, ToolCall, ToolChoice

API_VERSION = "2023-06-01"

DEFAULT_MAX_TOKENS = 4096
"""Anthropic requires a maximum in every request; this one is used if the caller gave none."""

_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}
_PDF_URL = "data:application/pdf;base64,"
_ONLY_JSON = "Answer with one JSON object, and with nothing before or after it."
"""Anthropic has no JSON mode without a schema."""
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_MAX_CACHE_HINTS = 4
_DATA_URL = re.compile(r"data:(image/[a-z+.-]+);base64,", re.IGNORECASE)


def request_body(request: ChatRequest, *, is_stream: bool) -> bytes:
    """Raises UpstreamRejected, before anything is sent, for anything without an equivalent at Anthropic."""
    model = find_model(request.model)
    turns = _messages(request.messages, takes_prefill=model.takes_prefill)
    maximum = request.max_tokens or DEFAULT_MAX_TOKENS
    reasoning = plan_reasoning(request, model, turns, maximum=maximum)
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": maximum,
        "messages": _without_thinking(turns) if reasoning.is_off else turns,
        "system": _system(request),
        **samplers(
            model,
            temperature=_temperature(request.temperature),
            top_p=None if request.top_p == 1 else request.top_p,
            thinks=reasoning.is_on,
        ),
        "stop_sequences": [text for text in request.stop if text.strip()],
        "tools": [_tool(tool, f"tools[{index}].function") for index, tool in enumerate(request.tools)],
        "tool_choice": _tool_choice(request.tool_choice, model) if request.tools and request.tool_choice else None,
        "output_config": _output_config(request, reasoning.effort),
        "thinking": reasoning.thinking,
        "metadata": {"user_id": _user_id(request.user)} if request.user else None,
        "stream": True if is_stream else None,
    }
    _keep_last_hints(body)
    return orjson.dumps({name: value for name, value in body.items() if value not in (None, [], {}, "")})


def _messages(messages: Iterable[ChatMessage], *, takes_prefill: bool) -> list[dict[str, Any]]:
    """Alternating turns: the results of several tools must be in the single turn that follows their calls.

    takes_prefill: whether the model continues a last turn of the assistant's.
    """
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
    if turns[-1]["role"] == "assistant" and not takes_prefill:
        raise UpstreamRejected("For this model, the last message must be a user's or a tool's.", param="messages")
    _refuse_results_without_call(turns)
    if turns[-1]["role"] == "assistant" and (last := turns[-1]["content"][-1])["type"] == "text":
        # The model continues from this text, which must not end in a space.
        last["text"] = last["text"].rstrip()
    return turns


def _refuse_results_without_call(turns: Sequence[Mapping[str, Any]]) -> None:
    called: set[str] = set()
    for turn in turns:
        for block in turn["content"]:
            if block["type"] == "tool_result" and block["tool_use_id"] not in called:
                raise UpstreamRejected(
                    "For this model, the result of a tool must follow the message that called the tool.",
                    param="messages",
                )
        called = {block["id"] for block in turn["content"] if block["type"] == "tool_use"}


def _keep_last_hints(body: Mapping[str, Any]) -> None:
    """Anthropic refuses more than four cache hints. The last ones cover the longest parts of the prompt."""
    system = body["system"] if isinstance(body["system"], list) else []
    blocks = [*body["tools"], *system, *(block for turn in body["messages"] for block in turn["content"])]
    for block in [block for block in blocks if "cache_control" in block][:-_MAX_CACHE_HINTS]:
        del block["cache_control"]


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": allowed_name(message.tool_call_id or "")}
        content = message.content if isinstance(message.content, str) else _content_blocks(message.content)
        return [{**result, "content": content} if content else result]
    parts = (TextPart(message.content),) if isinstance(message.content, str) else message.content
    said = _content_blocks(parts) + [_tool_use(call) for call in message.tool_calls]
    # Anthropic refuses a turn that consists only of thinking.
    return [thinking_block(each) for each in message.thinking if each.can_return and said] + said


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
    if url[:8].lower() == "https://":
        return {"type": "url", "url": url}
    if not url.lower().startswith(_PDF_URL):
        raise UpstreamRejected(
            "This model takes files as PDFs: in base64 in a data URL, or by an https URL.", param="messages"
        )
    return {"type": "base64", "media_type": "application/pdf", "data": url[len(_PDF_URL) :]}


def _image_source(url: str) -> dict[str, str]:
    if url[:8].lower() == "https://":
        return {"type": "url", "url": url}
    head = _DATA_URL.match(url)
    media_type = "" if head is None else head.group(1).lower().replace("image/jpg", "image/jpeg")
    if head is None or media_type not in _IMAGE_TYPES:
        raise UpstreamRejected(
            "This model takes images as an https URL, or as JPEG, PNG, GIF or WebP in base64 in a data URL.",
            param="messages",
        )
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
    """A text, or blocks if one of them has a cache hint."""
    messages = [message for message in request.messages if message.role in ("system", "developer")]
    wants_json = (request.response_format or {}).get("type") == "json_object"
    parts = [part for message in messages if not isinstance(message.content, str) for part in message.content]
    if any(part.cache for part in parts):
        blocks = [block for message in messages for block in _blocks(message) if block["type"] == "text"]
        return [*blocks, {"type": "text", "text": _ONLY_JSON}] if wants_json else blocks
    texts = [message.text for message in messages if message.text.strip()]
    return "\n\n".join([*texts, _ONLY_JSON] if wants_json else texts)


def _user_id(user: str) -> str:
    """Anthropic refuses e-mail addresses, phone numbers and long texts, and wants an opaque id."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


def _temperature(temperature: float | None) -> float | None:
    if temperature is not None and temperature > 1:
        raise UpstreamRejected("'temperature' must be between 0 and 1 for this model.", param="temperature")
    return None if temperature == 1 else temperature


def _tool(tool: Tool, param: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", **tool.parameters}
    sent: dict[str, Any] = {"name": allowed_name(tool.name)}
    if tool.description:
        sent["description"] = tool.description
    if tool.is_strict:
        schema, sent["strict"] = closed_schema(schema, f"{param}.parameters"), True
    return _with_cache_hint({**sent, "input_schema": schema}, tool.cache)


def _tool_choice(choice: ToolChoice, model: ClaudeModel) -> dict[str, Any]:
    if choice.mode in ("required", "tool") and not model.takes_forced_tool:
        raise UpstreamRejected("For this model, 'tool_choice' must be 'auto' or 'none'.", param="tool_choice")
    fields: dict[str, Any] = {"type": _TOOL_CHOICES[choice.mode]}
    if choice.mode == "tool":
        fields["name"] = allowed_name(choice.name or "")
    if not choice.parallel and choice.mode != "none":
        fields["disable_parallel_tool_use"] = True
    return fields


def _output_config(request: ChatRequest, effort: str | None) -> Mapping[str, Any]:
    config: dict[str, Any] = {} if effort is None else {"effort": effort}
    if request.response_format is not None and request.response_format["type"] == "json_schema":
        config["format"] = _output_format(request.response_format)
    return config


def _output_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """Only the schema: Anthropic has no name for it, and always enforces it."""
    schema = response_format["json_schema"]["schema"]
    return {"type": "json_schema", "schema": closed_schema(schema, "response_format.json_schema.schema")}
