"""A request for a response as a ChatRequest, for providers that speak another dialect.

Anything that would change the reply and can't be passed on is refused by name. Omitted is what the reply can do
without: reasoning items that aren't ours (only the provider that wrote them can read them), `reasoning.summary`,
`store` (nothing is stored), `metadata`, `prompt_cache_*`, `safety_identifier`, `service_tier`, `truncation` and unknown
fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm.dialects.openai_chat.messages import read_image
from llm.dialects.openai_chat.translation import MODES
from llm.dialects.openai_responses.thinking import read_reasoning_item
from llm.dialects.openai_responses.tools import read_tools
from llm.dialects.request_fields import (
    output_maximum,
    read_list,
    read_number,
    read_object,
    read_string,
    refuse_fields,
    refuse_type,
    refuse_unsupported,
)
from llm.errors import InvalidRequest
from llm.types import ChatMessage, ChatRequest, ContentPart, FilePart, Role, TextPart, Thinking, ToolCall, ToolChoice

# Field -> the values that request nothing.
_UNTRANSLATABLE: Mapping[str, tuple[Any, ...]] = {
    "access_programs": ({},),
    "context_management": ([],),
    "image": ({},),
    "max_tool_calls": (),
    "moderation": (),
    "previous_response_id": (),
    "top_logprobs": (0,),
}
_LOGPROBS = "message.output_text.logprobs"
_ROLES: Mapping[str, Role] = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant"}


def to_chat(body: Mapping[str, Any], *, model: str) -> ChatRequest:
    """body: validated by `OpenAIResponses.parse`. Raises InvalidRequest for anything that can't be translated."""
    _refuse_untranslatable(body)
    return ChatRequest(
        model=model,
        messages=_messages(body),
        max_tokens=output_maximum(body.get("max_output_tokens")),
        temperature=read_number(body, "temperature"),
        top_p=read_number(body, "top_p"),
        tools=read_tools(body),
        tool_choice=_tool_choice(body),
        response_format=_response_format(read_object(body, "text").get("format")),
        reasoning_effort=_effort(body),
        user=read_string(body, "user"),
    )


def _refuse_untranslatable(body: Mapping[str, Any]) -> None:
    refuse_fields(body, _UNTRANSLATABLE)
    if _LOGPROBS in read_list(body, "include"):
        refuse_unsupported(f"include[{body['include'].index(_LOGPROBS)}]")
    if read_object(body, "text").get("verbosity") not in (None, "medium"):
        refuse_unsupported("text.verbosity")


def _messages(body: Mapping[str, Any]) -> tuple[ChatMessage, ...]:
    instructions, asked = read_string(body, "instructions"), body.get("input")
    messages = [ChatMessage(role="system", content=instructions)] if instructions else []
    if isinstance(asked, str):
        return (*messages, ChatMessage(role="user", content=asked))
    if not isinstance(asked, list) or not asked:
        refuse_type("input", "a string, or a list of at least one item")
    thinking: list[Thinking] = []
    for index, item in enumerate(asked):
        if isinstance(item, dict) and item.get("type") == "reasoning":
            thinking += read_reasoning_item(item)
            continue
        _add_item(messages, item, f"input[{index}]")
        if thinking and messages[-1].role == "assistant":
            messages[-1] = replace(messages[-1], thinking=(*messages[-1].thinking, *thinking))
        thinking = []
    return tuple(messages)


def _add_item(messages: list[ChatMessage], item: Any, param: str) -> None:
    if not isinstance(item, dict):
        refuse_type(param, "an object")
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind == "message":
        messages.append(_message(item, param))
    elif kind == "function_call":
        _add_call(messages, _call(item, param))
    elif kind == "function_call_output":
        content = _content(item.get("output"), f"{param}.output")
        messages.append(ChatMessage(role="tool", content=content, tool_call_id=_call_id(item, param)))
    else:
        raise InvalidRequest(f"This model does not support items of type '{str(kind)[:40]}'.", param=f"{param}.type")


def _message(item: Mapping[str, Any], param: str) -> ChatMessage:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        refuse_type(f"{param}.role", "one of 'user', 'assistant', 'system' and 'developer'")
    return ChatMessage(role=_ROLES[role], content=_content(item.get("content"), f"{param}.content"))


def _add_call(messages: list[ChatMessage], call: ToolCall) -> None:
    """Consecutive calls, and text before them, are one assistant turn."""
    if messages and messages[-1].role == "assistant":
        messages[-1] = replace(messages[-1], tool_calls=(*messages[-1].tool_calls, call))
    else:
        messages.append(ChatMessage(role="assistant", tool_calls=(call,)))


def _call(item: Mapping[str, Any], param: str) -> ToolCall:
    name, arguments = item.get("name"), item.get("arguments")
    if not isinstance(name, str):
        refuse_type(f"{param}.name", "a string")
    if arguments is not None and not isinstance(arguments, str):
        refuse_type(f"{param}.arguments", "a string of JSON")
    return ToolCall(_call_id(item, param), name, arguments or "{}")


def _call_id(item: Mapping[str, Any], param: str) -> str:
    call_id = item.get("call_id")
    if not isinstance(call_id, str) or not call_id:
        refuse_type(f"{param}.call_id", "the id of a call")
    return call_id


def _content(content: Any, param: str) -> str | tuple[ContentPart, ...]:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        refuse_type(param, "a string or a list of parts")
    return tuple(_part(part, f"{param}[{index}]") for index, part in enumerate(content))


def _part(part: Any, param: str) -> ContentPart:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text", "refusal"):
        name = "refusal" if kind == "refusal" else "text"
        text = part.get(name)
        if not isinstance(text, str):
            refuse_type(f"{param}.{name}", "a string")
        return TextPart(text)
    if kind == "input_image":
        return read_image({"url": part.get("image_url"), "detail": part.get("detail")}, f"{param}.image_url")
    if kind == "input_file":
        return _file(part, param)
    raise InvalidRequest(f"This model does not support content of type '{str(kind)[:40]}'.", param=f"{param}.type")


def _file(part: Mapping[str, Any], param: str) -> FilePart:
    """By its content, or by its address."""
    name = "file_data" if part.get("file_data") is not None else "file_url"
    url, filename, start = part.get(name), part.get("filename"), {"file_data": "data:", "file_url": "https://"}[name]
    if url is None:
        refuse_type(param, "a file with its 'file_data' or 'file_url'")
    if not isinstance(url, str) or not url.startswith(start):
        refuse_type(f"{param}.{name}", f"a URL that begins with {start}")
    return FilePart(url, filename if isinstance(filename, str) else "")


def _tool_choice(body: Mapping[str, Any]) -> ToolChoice | None:
    is_parallel = body.get("parallel_tool_calls") is not False
    choice = body.get("tool_choice")
    if choice is None:
        return None if is_parallel else ToolChoice(parallel=False)
    if isinstance(choice, str) and choice in MODES:
        return ToolChoice(mode=MODES[choice], parallel=is_parallel)
    name = choice.get("name") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(name, str) or not name:
        refuse_type("tool_choice", "'auto', 'none', 'required' or a function to call")
    return ToolChoice(mode="tool", name=name, parallel=is_parallel)


def _response_format(value: Any) -> Mapping[str, Any] | None:
    """In chat's form, as a ChatRequest has it."""
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema" or not isinstance(value.get("schema"), dict):
        refuse_type("text.format", "of the type 'text', 'json_object' or 'json_schema' (with its schema)")
    members = {name: value[name] for name in ("name", "description", "schema", "strict") if value.get(name) is not None}
    return {"type": "json_schema", "json_schema": members}


def _effort(body: Mapping[str, Any]) -> str | None:
    effort = read_object(body, "reasoning").get("effort")
    if effort is not None and not isinstance(effort, str):
        refuse_type("reasoning.effort", "a string")
    return effort
