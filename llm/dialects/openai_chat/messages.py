"""OpenAI chat messages as ChatMessages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm.dialects.request_fields import refuse_type
from llm.dialects.thinking import read_blocks, read_details
from llm.errors import InvalidRequest
from llm.types import ChatMessage, ContentPart, FilePart, ImagePart, Role, TextPart, Thinking, ToolCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """messages: objects with a string `role`. Raises InvalidRequest for anything that can't be translated."""
    legacy_call_ids: dict[str, str] = {}
    return tuple(
        _message(message, f"messages[{index}]", legacy_call_ids, index) for index, message in enumerate(messages)
    )


def _message(message: Mapping[str, Any], param: str, legacy_call_ids: dict[str, str], index: int) -> ChatMessage:
    """legacy_call_ids: function name -> id of its last call; the old `function_call` has no id, so we assign one."""
    role, name = message["role"], message.get("name")
    if role not in _ROLES:
        raise InvalidRequest("Unknown message role.", param=f"{param}.role")
    call = message.get("function_call")
    tool_calls = _tool_calls(message.get("tool_calls"), f"{param}.tool_calls")
    if call is not None:
        tool_calls = (*tool_calls, _tool_call(f"call_{index}", call, f"{param}.function_call"))
        legacy_call_ids[tool_calls[-1].name] = tool_calls[-1].id
    tool_call_id = message.get("tool_call_id")
    if role == "function":
        tool_call_id = legacy_call_ids.get(str(name))
    if _ROLES[role] == "tool" and not (isinstance(tool_call_id, str) and tool_call_id):
        raise InvalidRequest(
            ("A tool message needs the 'tool_call_id' of the call it answers."), param=f"{param}.tool_call_id"
        )
    return ChatMessage(
        role=_ROLES[role],
        content=_content(message.get("content"), f"{param}.content"),
        name=name if isinstance(name, str) else None,
        tool_calls=tool_calls,
        tool_call_id=tool_call_id if isinstance(tool_call_id, str) else None,
        thinking=_thinking(message, param) if role == "assistant" else (),
    )


def _thinking(message: Mapping[str, Any], param: str) -> tuple[Thinking, ...]:
    """In our own form, or in LiteLLM's. Unknown kinds are ignored."""
    for name, read in (("reasoning_details", read_details), ("thinking_blocks", read_blocks)):
        listed = message.get(name)
        if listed is not None and not (isinstance(listed, list) and all(isinstance(each, dict) for each in listed)):
            refuse_type(f"{param}.{name}", "a list of objects")
        if thinking := read(listed or ()):
            return thinking
    return ()


def _content(content: Any, param: str) -> str | tuple[ContentPart, ...]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        refuse_type(param, "a string or a list of parts")
    return tuple(_part(part, f"{param}[{index}]") for index, part in enumerate(content))


def _part(part: Any, param: str) -> ContentPart:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        refuse_type(param, "an object with a 'type'")
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            refuse_type(f"{param}.{kind}", "a string")
        return TextPart(text, cache=read_cache_hint(part))
    if kind == "image_url":
        return replace(read_image(part.get("image_url"), f"{param}.image_url"), cache=read_cache_hint(part))
    if kind == "file":
        return replace(_file(part.get("file"), f"{param}.file"), cache=read_cache_hint(part))
    raise InvalidRequest(f"This model does not support content of type '{kind[:40]}'.", param=f"{param}.type")


def read_image(image: Any, param: str) -> ImagePart:
    fields = image if isinstance(image, dict) else {"url": image}
    url, detail = fields.get("url"), fields.get("detail")
    if not isinstance(url, str) or not url.startswith(("https://", "http://", "data:")):
        refuse_type(param, "an http(s) or data URL")
    return ImagePart(url, detail if isinstance(detail, str) else None)


def _file(file: Any, param: str) -> FilePart:
    fields = file if isinstance(file, dict) else {}
    url, filename = fields.get("file_data"), fields.get("filename")
    if not isinstance(url, str) or not url.startswith("data:"):
        refuse_type(f"{param}.file_data", "a data URL")
    return FilePart(url, filename if isinstance(filename, str) else "")


def read_cache_hint(holder: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """`cache_control` of a part or a tool; ignored if it isn't an object."""
    hint = holder.get("cache_control")
    return hint if isinstance(hint, dict) else None


def _tool_calls(calls: Any, param: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list):
        refuse_type(param, "a list")
    read: list[ToolCall] = []
    for index, call in enumerate(calls):
        if not isinstance(call, dict) or not isinstance(call.get("id"), str):
            refuse_type(f"{param}[{index}]", "an object with an 'id'")
        read.append(_tool_call(call["id"], call.get("function"), f"{param}[{index}].function"))
    return tuple(read)


def _tool_call(call_id: str, function: Any, param: str) -> ToolCall:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        refuse_type(param, "an object with a 'name'")
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        refuse_type(f"{param}.arguments", "a string of JSON")
    return ToolCall(call_id, function["name"], arguments or "{}")
