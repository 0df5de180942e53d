"""An OpenAI chat body as a ChatRequest, for providers that speak another dialect.

Anything that would change the reply and can't be passed on is refused by name (`_UNTRANSLATABLE`, unless it has the
default value). The rest that a ChatRequest can't express is ignored: `seed` (best effort by definition), `prediction`
and `service_tier` (speed), `store`, `metadata`, `prompt_cache_*`, `safety_identifier` and unknown fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from llm.dialects.openai_chat.messages import read_cache_hint, read_messages
from llm.dialects.request_fields import (
    output_maximum,
    read_list,
    read_number,
    read_string,
    refuse_fields,
    refuse_type,
)
from llm.errors import InvalidRequest
from llm.types import ChatRequest, Tool, ToolChoice

# Field -> the values that request nothing.
_UNTRANSLATABLE: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"], []),
    "moderation": (),
    "n": (1,),
    "presence_penalty": (0,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
MODES: dict[str, Literal["auto", "none", "required"]] = {"auto": "auto", "none": "none", "required": "required"}


def to_chat(body: Mapping[str, Any], *, model: str) -> ChatRequest:
    """body: validated by `OpenAIChat.parse`. Raises InvalidRequest for anything that can't be translated."""
    refuse_fields(body, _UNTRANSLATABLE)
    return ChatRequest(
        model=model,
        messages=read_messages(body["messages"]),
        max_tokens=_max_tokens(body),
        temperature=read_number(body, "temperature"),
        top_p=read_number(body, "top_p"),
        stop=_stop(body.get("stop")),
        tools=_tools(body),
        tool_choice=_tool_choice(body),
        response_format=_response_format(body.get("response_format")),
        reasoning_effort=read_string(body, "reasoning_effort"),
        user=read_string(body, "user") or read_string(body, "safety_identifier"),
    )


def _tools(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    tools = read_list(body, "tools")
    if tools:
        return tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))
    functions = read_list(body, "functions")
    return tuple(read_function(function, f"functions[{index}]") for index, function in enumerate(functions))


def _tool(tool: Any, param: str) -> Tool:
    if not isinstance(tool, dict):
        refuse_type(param, "an object")
    if (kind := tool.get("type")) != "function":
        raise InvalidRequest(
            f"This model supports only tools of type 'function', not '{str(kind)[:40]}'.", param=f"{param}.type"
        )
    return replace(read_function(tool.get("function"), f"{param}.function"), cache=read_cache_hint(tool))


def read_function(function: Any, param: str) -> Tool:
    if not isinstance(function, dict):
        refuse_type(param, "an object")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        refuse_type(f"{param}.name", "a name")
    if parameters is not None and not isinstance(parameters, dict):
        refuse_type(f"{param}.parameters", "a JSON schema")
    description = function.get("description")
    return Tool(
        name=name,
        description=description if isinstance(description, str) else "",
        parameters=parameters or {"type": "object", "properties": {}},
        is_strict=function.get("strict") is True,
    )


def _tool_choice(body: Mapping[str, Any]) -> ToolChoice | None:
    is_parallel = body.get("parallel_tool_calls") is not False
    choice = body.get("tool_choice")
    if body.get("functions") and not body.get("tools"):
        # The old fields only support one call at a time.
        is_parallel = False
        choice = body.get("function_call")
        if isinstance(choice, dict):
            choice = {"type": "function", "function": choice}
    if choice is None:
        return None if is_parallel else ToolChoice(parallel=False)
    if isinstance(choice, str) and choice in MODES:
        return ToolChoice(mode=MODES[choice], parallel=is_parallel)
    return ToolChoice(mode="tool", name=_chosen_function(choice), parallel=is_parallel)


def _chosen_function(choice: Any) -> str:
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        refuse_type("tool_choice", "'auto', 'none', 'required' or a function to call")
    return name


def _response_format(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    schema = value.get("json_schema") if kind == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        refuse_type("response_format", "of the type 'text', 'json_object' or 'json_schema' (with its schema)")
    return {"type": "json_schema", "json_schema": schema}


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        refuse_type("stop", "a string or a list of strings")
    return tuple(value)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    given = (body[name] for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None)
    return output_maximum(next(given, None))
