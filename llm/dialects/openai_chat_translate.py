"""An OpenAI chat body as a ChatRequest, for providers that speak another dialect.

What would change the reply and cannot be passed on is refused by name (`_UNTRANSLATABLE`, unless it says what is the
default anyway). The rest of what a ChatRequest has no place for is ignored: `seed` (best effort by definition),
`prediction` and `service_tier` (speed), `store`, `metadata`, `prompt_cache_*`, `safety_identifier` and unknown fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from llm.dialects.openai_chat_messages import read_messages
from llm.errors import InvalidRequest
from llm.types import ChatRequest, Tool, ToolChoice

# Field -> the values that mean nothing is asked.
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
_MODES: dict[str, Literal["auto", "none", "required"]] = {"auto": "auto", "none": "none", "required": "required"}


def to_chat(body: Mapping[str, Any], *, model: str) -> ChatRequest:
    """body: checked by `OpenAIChat.parse`. Raises InvalidRequest for what cannot be translated."""
    _refuse_untranslatable(body)
    return ChatRequest(
        model=model,
        messages=read_messages(body["messages"]),
        max_tokens=_first_given(body, "max_completion_tokens", "max_tokens"),
        temperature=_number(body, "temperature"),
        top_p=_number(body, "top_p"),
        stop=_stop(body.get("stop")),
        tools=_tools(body),
        tool_choice=_tool_choice(body),
        response_format=_response_format(body.get("response_format")),
        reasoning_effort=_string(body, "reasoning_effort"),
        user=_string(body, "user"),
    )


def _refuse_untranslatable(body: Mapping[str, Any]) -> None:
    for name, neutral in _UNTRANSLATABLE.items():
        value = body.get(name)
        if value is not None and value not in neutral:
            raise InvalidRequest(f"'{name}' is not available for this model.", param=name)


def _tools(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    tools = _list(body, "tools")
    if tools:
        return tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))
    functions = _list(body, "functions")
    return tuple(_function(function, f"functions[{index}]") for index, function in enumerate(functions))


def _tool(tool: Any, param: str) -> Tool:
    if not isinstance(tool, dict):
        _wrong(param, "an object")
    if tool.get("type") != "function":
        raise InvalidRequest("Only tools of the type 'function' are available for this model.", param=f"{param}.type")
    return _function(tool.get("function"), f"{param}.function")


def _function(function: Any, param: str) -> Tool:
    if not isinstance(function, dict):
        _wrong(param, "an object")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        _wrong(f"{param}.name", "a name")
    if parameters is not None and not isinstance(parameters, dict):
        _wrong(f"{param}.parameters", "a JSON schema")
    description = function.get("description")
    return Tool(
        name=name,
        description=description if isinstance(description, str) else "",
        parameters=parameters or {"type": "object", "properties": {}},
    )


def _tool_choice(body: Mapping[str, Any]) -> ToolChoice | None:
    is_parallel = body.get("parallel_tool_calls") is not False
    choice = body.get("tool_choice")
    if body.get("functions") and not body.get("tools"):
        # The old fields know one call at a time.
        is_parallel = False
        choice = body.get("function_call")
        if isinstance(choice, dict):
            choice = {"type": "function", "function": choice}
    if choice is None:
        return None if is_parallel else ToolChoice(parallel=False)
    if isinstance(choice, str) and choice in _MODES:
        return ToolChoice(mode=_MODES[choice], parallel=is_parallel)
    return ToolChoice(mode="tool", name=_chosen_function(choice), parallel=is_parallel)


def _chosen_function(choice: Any) -> str:
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        _wrong("tool_choice", "'auto', 'none', 'required' or a function to call")
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
        _wrong("response_format", "of the type 'text', 'json_object' or 'json_schema' (with its schema)")
    return {"type": "json_schema", "json_schema": schema}


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        _wrong("stop", "a string or a list of strings")
    return tuple(value)


def _first_given(body: Mapping[str, Any], *names: str) -> int | None:
    return next((int(body[name]) for name in names if body.get(name) is not None), None)


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(name, "a number")
    return float(value)


def _string(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        _wrong(name, "a string")
    return value


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        _wrong(name, "a list")
    return value or []


def _wrong(param: str, expected: str) -> NoReturn:
    raise InvalidRequest(f"'{param}' must be {expected}.", param=param)
