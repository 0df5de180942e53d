"""The functions that a request offers, for providers that know no namespaces: those of a namespace beside all others.

A model calls a function by its own name; the reply says which namespace it is in, as OpenAI's does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm.dialects.openai_chat.translation import read_function
from llm.dialects.openai_responses.text import items_of
from llm.dialects.request_fields import read_list, refuse_type
from llm.errors import InvalidRequest
from llm.types import Tool

_NAMESPACE = "namespace"


def read_tools(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    """Raises InvalidRequest for tools that aren't functions, and for a name that two namespaces have."""
    tools = tuple(read_function(function, place) for place, function in _functions(read_list(body, "tools"), "tools"))
    names = [tool.name for tool in tools]
    for name in namespaces_by_function(body):
        if names.count(name) > 1:
            raise InvalidRequest(
                f"This model supports no namespaces: the name '{name[:40]}' must belong to one function.", param="tools"
            )
    return tools


def places_of_functions(body: Mapping[str, Any]) -> list[str]:
    """The paths of the tools that `read_tools` has read, in that order."""
    return [place for place, _ in _functions(read_list(body, "tools"), "tools")]


def namespaces_by_function(body: Mapping[str, Any]) -> dict[str, str]:
    """The namespace of each function that is in one, by the function's name. Nothing is raised."""
    return {
        str(function.get("name")): str(tool.get("name"))
        for tool in items_of(body.get("tools"))
        if tool.get("type") == _NAMESPACE
        for function in items_of(tool.get("tools"))
    }


def _functions(tools: list[Any], param: str) -> Iterator[tuple[str, Any]]:
    """(path, function). Raises InvalidRequest for any other tool."""
    for index, tool in enumerate(tools):
        place = f"{param}[{index}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind == _NAMESPACE and param == "tools":
            yield from _functions(_members(tool, f"{place}.tools"), f"{place}.tools")
        elif kind == "function":
            yield place, tool
        elif isinstance(kind, str):
            raise InvalidRequest(
                f"This model supports only tools of type 'function': leave out the tool of type '{kind[:40]}', which "
                "only OpenAI has.",
                param=f"{place}.type",
            )
        else:
            refuse_type(place, "a tool with a 'type'")


def _members(namespace: Mapping[str, Any], param: str) -> list[Any]:
    members = namespace.get("tools")
    if not isinstance(members, list):
        refuse_type(param, "a list")
    return members
