"""JSON schemas as Anthropic compiles them, for structured output and strict tools.

Sources, read 2026-11: Anthropic's documentation ("Structured outputs", JSON schema limitations); anthropic 2.12,
`lib/_parse/_transform.py`, which does the same for the SDK's users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from llm.errors import UpstreamRejected

_UNSUPPORTED = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
"""Constraints that it doesn't enforce: the model is told of them in the description."""
_SCHEMAS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_INNER = (
    *("anyOf", "allOf", "oneOf", "prefixItems", "items", "additionalItems", "contains", "propertyNames"),
    *("not", "if", "then", "else"),
)
"""Members that contain a schema, or a list of schemas."""
_MAX_DEPTH = 64


def closed_schema(schema: Mapping[str, Any], param: str, depth: int = 0) -> dict[str, Any]:
    """The schema with every object closed. Raises UpstreamRejected, with the path, if an object allows any members."""
    if depth > _MAX_DEPTH:
        raise UpstreamRejected(f"'{param}' is nested too deeply for this model.", param=param)
    closed = {name: value for name, value in schema.items() if name not in _told(schema)}
    if told := _told(schema):
        bounds = orjson.dumps({name: schema[name] for name in told}).decode()
        closed["description"] = " ".join(filter(None, (str(schema.get("description") or ""), bounds)))
    if "object" in _listed(schema.get("type")) or "properties" in schema:
        if schema.get("additionalProperties") not in (None, False):
            raise UpstreamRejected(
                f"This model needs 'additionalProperties': false in every object of a schema, also in '{param}'.",
                param=f"{param}.additionalProperties",
            )
        closed["additionalProperties"] = False
    for name, inner, path in _inner(schema, param):
        closed[name] = _closed(inner, path, depth)
    return closed


def _told(schema: Mapping[str, Any]) -> list[str]:
    """The constraints to add to the description; minItems is enforced only for 0 and 1."""
    told = [name for name in _UNSUPPORTED if name in schema]
    return [*told, "minItems"] if schema.get("minItems") not in (None, 0, 1) else told


def _inner(schema: Mapping[str, Any], param: str) -> Iterator[tuple[str, Any, str]]:
    for name in (*_SCHEMAS, *_INNER):
        if isinstance(schema.get(name), dict | list):
            yield name, schema[name], f"{param}.{name}"


def _listed(kinds: Any) -> list[Any]:
    return kinds if isinstance(kinds, list) else [kinds]


def _closed(inner: Any, path: str, depth: int) -> Any:
    """A schema, a list of schemas, or an object whose members are schemas."""
    if isinstance(inner, list):
        return [_closed_one(each, f"{path}[{index}]", depth) for index, each in enumerate(inner)]
    if path.rpartition(".")[2] in _SCHEMAS:
        return {name: _closed_one(each, f"{path}.{name}", depth) for name, each in inner.items()}
    return closed_schema(inner, path, depth + 1)


def _closed_one(schema: Any, path: str, depth: int) -> Any:
    return closed_schema(schema, path, depth + 1) if isinstance(schema, dict) else schema
