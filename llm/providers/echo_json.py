"""Values that match a JSON schema, deterministically: `echo` fills tools and JSON replies with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_VALUES = 500
"""A recursive schema never ends, and one that doubles at each step takes practically for ever."""
MAX_DEPTH = 20
_FORMATS = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "email": "echo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_BY_KEYWORD = {"properties": "object", "items": "array", "minimum": "number", "pattern": "string"}


def build_example(schema: object) -> Any:
    """A short value that the schema allows; None if it contains nothing that we understand."""
    root = schema if isinstance(schema, Mapping) else {}
    return _Examples(root).of(schema, depth=0)


class _Examples:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MAX_VALUES

    def of(self, schema: object, *, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH or self._left < 0:
            return None
        if isinstance(reference := schema.get("$ref"), str):
            return self.of(self._referred(reference), depth=depth + 1)
        if "const" in schema:
            return schema["const"]
        for name in ("enum", "examples"):
            if isinstance(values := schema.get(name), list) and values:
                return values[0]
        for name in ("anyOf", "oneOf", "allOf"):
            if isinstance(choices := schema.get(name), list) and choices:
                return self.of(choices[0], depth=depth + 1)
        return self._of_type(_type_of(schema), schema, depth)

    def _of_type(self, kind: str, schema: Mapping[str, Any], depth: int) -> Any:
        if kind == "object":
            properties = schema.get("properties")
            found = properties if isinstance(properties, Mapping) else {}
            return {str(name): self.of(part, depth=depth + 1) for name, part in found.items()}
        if kind == "array":
            count = min(max(_whole(schema.get("minItems")), 1), 10)
            return [self.of(schema.get("items", {}), depth=depth + 1) for _ in range(count)]
        if kind == "string":
            return _text(schema)
        if kind in ("integer", "number"):
            return _number(schema)
        return True if kind == "boolean" else None

    def _referred(self, reference: str) -> object:
        """Only within this schema: `#/$defs/Name`."""
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def _type_of(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    kind = next((each for each in kinds if each != "null"), "null") if isinstance(kinds, list) else kinds
    if isinstance(kind, str):
        return kind
    return next((kind for keyword, kind in _BY_KEYWORD.items() if keyword in schema), "string")


def _text(schema: Mapping[str, Any]) -> str:
    known = _FORMATS.get(str(schema.get("format")))
    if known is not None:
        return known
    text = "echo".ljust(min(_whole(schema.get("minLength")), 1000), "o")
    longest = schema.get("maxLength")
    return text[:longest] if isinstance(longest, int) and longest >= 0 else text


def _number(schema: Mapping[str, Any]) -> int:
    lowest = max(_whole(schema.get("minimum")), _whole(schema.get("exclusiveMinimum")) + 1, 1)
    highest = schema.get("maximum")
    return min(lowest, _whole(highest)) if isinstance(highest, int | float) else lowest


def _whole(value: object) -> int:
    """0 for anything that isn't a sensible number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**15
    return int(value) if is_number else 0  # type: ignore[call-overload]
