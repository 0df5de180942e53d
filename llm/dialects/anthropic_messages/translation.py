"""A messages body as a ChatRequest, for providers that speak another dialect.

Anything that would change the reply and can't be passed on is refused by name. Omitted are hints (`cache_control`),
what only Anthropic's own models understand (how to think) and unknown fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import orjson

from llm.dialects.request_fields import (
    read_list,
    read_number,
    read_object,
    read_string,
    refuse_fields,
    refuse_type,
    refuse_unsupported,
)
from llm.dialects.thinking import BLOCK_KINDS, read_blocks
from llm.errors import InvalidRequest
from llm.types import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    ImagePart,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)

# Field -> the values that request nothing.
_UNTRANSLATABLE: dict[str, tuple[Any, ...]] = {
    "compaction": (),
    "container": (),
    "inference_geo": (),
    "mcp_servers": ([],),
    "speed": ("standard",),
    "top_k": (),
}
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_MODES: dict[str, Literal["auto", "none", "required", "tool"]] = {
    "auto": "auto",
    "none": "none",
    "any": "required",
    "tool": "tool",
}


def to_chat(body: Mapping[str, Any], *, model: str, max_tokens: int | None) -> ChatRequest:
    """Raises InvalidRequest for what cannot be translated."""
    refuse_fields(body, _UNTRANSLATABLE)
    _check_context_management(body.get("context_management"))
    messages = [_system(body.get("system"))] if body.get("system") else []
    for index, message in enumerate(read_list(body, "messages")):
        messages += _read_message(message, f"messages[{index}]")
    if not messages:
        refuse_type("messages", "a list of at least one message")
    return ChatRequest(
        model=model,
        messages=tuple(messages),
        max_tokens=max_tokens,
        temperature=read_number(body, "temperature"),
        top_p=read_number(body, "top_p"),
        stop=_stop_sequences(body),
        tools=tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(read_list(body, "tools"))),
        tool_choice=_tool_choice(body.get("tool_choice")),
        response_format=_response_format(body),
        reasoning_effort=_reasoning_effort(body),
        user=read_string(read_object(body, "metadata"), "user_id"),
    )


def _check_context_management(management: Any) -> None:
    """Thinking doesn't go to other providers in any case, so asking for less of it changes nothing."""
    if management is None:
        return
    edits = management.get("edits", []) if isinstance(management, dict) and set(management) <= {"edits"} else None
    if not isinstance(edits, list) or not all(map(_clears_thinking, edits)):
        refuse_unsupported("context_management")


def _clears_thinking(edit: Any) -> bool:
    return isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking_")


# --- Messages ---------------------------------------------------------------------------------------------------------


def _system(system: Any) -> ChatMessage:
    if isinstance(system, str):
        return ChatMessage("system", system)
    if not isinstance(system, list):
        refuse_type("system", "a string or a list of text blocks")
    texts = [_text(block, f"system[{index}]") for index, block in enumerate(system)]
    return ChatMessage("system", "\n\n".join(text for text in texts if text))


def _read_message(message: Any, path: str) -> list[ChatMessage]:
    """One message, or several: tool results are separate messages, before the rest of their turn."""
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        refuse_type(f"{path}.role", "'user' or 'assistant'")
    content = message.get("content")
    if isinstance(content, str):
        return [ChatMessage(_ROLES[role], content)]
    if not isinstance(content, list):
        refuse_type(f"{path}.content", "a string or a list of blocks")
    places = [(block, f"{path}.content[{index}]") for index, block in enumerate(content)]
    if role == "assistant":
        return [_assistant(places)]
    return _turn(_ROLES[role], places)


def _assistant(places: list[tuple[Any, str]]) -> ChatMessage:
    parts: list[ContentPart] = []
    calls: list[ToolCall] = []
    for block, path in places:
        kind = _kind_of(block, path)
        if kind == "tool_use":
            calls.append(_tool_call(block, path))
        elif kind not in BLOCK_KINDS:
            parts.append(TextPart(_text(block, path)))
    thinking = read_blocks(block for block, _ in places)
    return ChatMessage("assistant", _content(parts), tool_calls=tuple(calls), thinking=thinking)


def _turn(role: Role, places: list[tuple[Any, str]]) -> list[ChatMessage]:
    results: list[ChatMessage] = []
    parts: list[ContentPart] = []
    for block, path in places:
        if _kind_of(block, path) == "tool_result":
            result, others = _tool_result(block, path)
            results.append(result)
            # A tool's message elsewhere contains only text, so the rest follows it in a message of the caller's.
            parts += others
        else:
            parts.append(_part(block, path))
    return [*results, ChatMessage(role, _content(parts))] if parts else results


def _tool_result(block: Mapping[str, Any], path: str) -> tuple[ChatMessage, list[ContentPart]]:
    call_id, content = block.get("tool_use_id"), block.get("content")
    if not isinstance(call_id, str) or not call_id:
        refuse_type(f"{path}.tool_use_id", "the id of the call that it answers")
    if content is None or isinstance(content, str):
        content = [{"type": "text", "text": content or ""}]
    if not isinstance(content, list):
        refuse_type(f"{path}.content", "a string or a list of blocks")
    parts = [_part(part, f"{path}.content[{index}]") for index, part in enumerate(content)]
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    if block.get("is_error") is True and not text.lower().startswith("error"):
        text = f"Error: {text}"
    return ChatMessage("tool", text, tool_call_id=call_id), [part for part in parts if not isinstance(part, TextPart)]


def _part(block: Any, path: str) -> ContentPart:
    kind = _kind_of(block, path)
    if kind == "image":
        return ImagePart(_image_url(block.get("source"), f"{path}.source"))
    if kind == "document":
        return _document(block, path)
    return TextPart(_text(block, path))


def _document(block: Mapping[str, Any], path: str) -> ContentPart:
    """A PDF is a file elsewhere, a text is a text; citations of them have no equivalent."""
    if read_object(block, "citations").get("enabled"):
        refuse_unsupported(f"{path}.citations")
    title = read_string(block, "title") or ""
    source = block.get("source")
    fields = source if isinstance(source, dict) else {}
    kind, data, url = (fields.get(name) for name in ("type", "data", "url"))
    if kind == "text" and isinstance(data, str):
        return TextPart("\n\n".join(filter(None, (title, read_string(block, "context"), data))))
    if kind == "url" and isinstance(url, str) and url.startswith("https://"):
        return FilePart(url, title)
    if kind != "base64" or not isinstance(data, str) or fields.get("media_type") != "application/pdf":
        refuse_type(f"{path}.source", "a text, or a PDF as base64 or by its https URL")
    return FilePart(f"data:application/pdf;base64,{data}", title)


def _text(block: Any, path: str) -> str:
    """Raises InvalidRequest also for a block of another kind, which has no equivalent."""
    if (kind := _kind_of(block, path)) != "text":
        raise InvalidRequest(f"This model does not support content of type '{kind[:40]}'.", param=f"{path}.type")
    text = block.get("text")
    if not isinstance(text, str):
        refuse_type(f"{path}.text", "a string")
    return text


def _kind_of(block: Any, path: str) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        refuse_type(path, "an object with a 'type'")
    return kind


def _image_url(source: Any, path: str) -> str:
    fields = source if isinstance(source, dict) else {}
    url, media_type, data = (fields.get(name) for name in ("url", "media_type", "data"))
    if fields.get("type") == "url" and isinstance(url, str) and url.startswith(("https://", "http://")):
        return url
    if fields.get("type") != "base64" or not isinstance(media_type, str) or not isinstance(data, str):
        refuse_type(path, "an image by its URL, or as base64 with its media type")
    return f"data:{media_type};base64,{data}"


def _tool_call(block: Mapping[str, Any], path: str) -> ToolCall:
    call_id, name, arguments = block.get("id"), block.get("name"), block.get("input")
    if not isinstance(call_id, str) or not isinstance(name, str) or not isinstance(arguments, dict):
        refuse_type(path, "a tool call with an 'id', a 'name' and its 'input'")
    return ToolCall(call_id, name, orjson.dumps(arguments).decode())


def _content(parts: list[ContentPart]) -> str | tuple[ContentPart, ...]:
    """A single text as a string: some servers don't accept a list of one part."""
    if not parts:
        return ""
    return parts[0].text if len(parts) == 1 and isinstance(parts[0], TextPart) else tuple(parts)


# --- Tools, and the form of the reply ---------------------------------------------------------------------------------


def _tool(tool: Any, path: str) -> Tool:
    if not isinstance(tool, dict):
        refuse_type(path, "an object")
    if tool.get("type") not in (None, "custom"):
        kind = str(tool["type"])[:40]
        raise InvalidRequest(f"This model does not support the tool '{kind}', only your own.", param=f"{path}.type")
    name, schema, description = (tool.get(member) for member in ("name", "input_schema", "description"))
    if not isinstance(name, str) or not name:
        refuse_type(f"{path}.name", "a name")
    if not isinstance(schema, dict):
        refuse_type(f"{path}.input_schema", "a JSON schema")
    return Tool(name, description if isinstance(description, str) else "", schema)


def _tool_choice(choice: Any) -> ToolChoice | None:
    if choice is None:
        return None
    kind, name = (choice.get("type"), choice.get("name")) if isinstance(choice, dict) else (None, None)
    if not isinstance(kind, str) or kind not in _MODES:
        refuse_type("tool_choice", "of the type 'auto', 'any', 'tool' or 'none'")
    if kind == "tool" and not (isinstance(name, str) and name):
        refuse_type("tool_choice.name", "the name of a tool")
    is_parallel = choice.get("disable_parallel_tool_use") is not True
    return ToolChoice(_MODES[kind], name if kind == "tool" else None, parallel=is_parallel)


def _response_format(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """From `output_config`, or from the older field used by betas."""
    config = read_object(body, "output_config")
    name, wanted = ("output_config.format", config["format"]) if config.get("format") else ("output_format", None)
    wanted = wanted or body.get("output_format")
    if wanted is None:
        return None
    schema = wanted.get("schema") if isinstance(wanted, dict) and wanted.get("type") == "json_schema" else None
    if not isinstance(schema, dict):
        refuse_type(name, "of the type 'json_schema', with its schema")
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


def _reasoning_effort(body: Mapping[str, Any]) -> str | None:
    effort = read_string(read_object(body, "output_config"), "effort")
    return "xhigh" if effort == "max" else effort


def _stop_sequences(body: Mapping[str, Any]) -> tuple[str, ...]:
    texts = read_list(body, "stop_sequences")
    if not all(isinstance(text, str) for text in texts):
        refuse_type("stop_sequences", "a list of strings")
    return tuple(texts)
