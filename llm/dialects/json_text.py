"""Finds and changes a member of a JSON text without rewriting the rest.

A reply passes through as bytes: numbers, spaces and unknown fields stay as the provider wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

# A text without a closing quote extends to the end: retried at each escaped quote, it would take for ever.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"\s*+:\s*+")
_SCALAR = re.compile(rb"[^\s,}\]]++")
_CLOSING = re.compile(rb"\s*+\}")
_SPACE = re.compile(rb"\s*+")
# An unescaped quote on both sides: no text inside a string looks like this.
_USAGE_OBJECT = re.compile(rb'"usage"\s*+:\s*+\{')


class Member(NamedTuple):
    """Offsets into the text: of the key's first quote, the value's first byte, and the byte after the value."""

    key: int
    value: int
    end: int


class Place(NamedTuple):
    """Offsets into a text of the part to replace, and what goes before and after the new value."""

    start: int
    end: int
    before: str = ""
    after: str = ""


def find_members(text: bytes, *, limit: int = 200) -> dict[str, Place]:
    """Positions of the outermost object's members; {} if there are more than `limit`.

    text: a JSON object. Keys written with escapes or non-ASCII characters are omitted: none of our fields are.
    """
    places: dict[str, Place] = {}
    depth = 0
    position = 0
    while (token := _TOKEN.search(text, position)) is not None:
        found, position = token.group(), token.end()
        if found in (b"{", b"["):
            depth += 1
        elif found in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and (colon := _COLON.match(text, position)) is not None:
            end = end_of_value(text, colon.end())
            if b"\\" not in found and found.isascii():
                places[found[1:-1].decode()] = Place(colon.end(), end)
            if len(places) > limit:
                return {}
            position = end
    return places


def replaced(text: bytes, changes: Mapping[Place, bytes]) -> bytes:
    """`text` with new bytes in those places, in a single copy."""
    view = memoryview(text)
    pieces: list[bytes | memoryview] = []
    done = 0
    for place, value in sorted(changes.items()):
        pieces += (view[done : place.start], place.before.encode(), value, place.after.encode())
        done = place.end
    return b"".join((*pieces, view[done:]))


def find_member(text: bytes, key: bytes, start: int = 0) -> Member | None:
    """The member called `key` of the first object at or after `start`, not of nested objects."""
    quoted = b'"' + key + b'"'
    depth = 0
    for token in _TOKEN.finditer(text, start):
        found = token.group()
        if found in (b"{", b"["):
            depth += 1
        elif found in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return None
        elif depth == 1 and found == quoted and (colon := _COLON.match(text, token.end())):
            return Member(token.start(), colon.end(), end_of_value(text, colon.end()))
    return None


def without_member(text: bytes, key: bytes) -> bytes:
    """`text` without this member of its outermost object, and without the comma that separated it."""
    member = find_member(text, key)
    if member is None:
        return text
    before, after = text[: member.key].rstrip(), text[member.end :]
    if before.endswith(b","):
        return before[:-1] + after
    space = _SPACE.match(text, member.end)
    rest = text[space.end() :] if space else after
    return text[: member.key] + rest[1:].lstrip() if rest.startswith(b",") else text[: member.key] + after


def with_members(text: bytes, members: Mapping[str, Any]) -> bytes:
    """`text`, an object that has members but none of these, with these appended."""
    end = len(text.rstrip()) - 1
    return b"".join((memoryview(text)[:end], b",", orjson.dumps(members)[1:]))


def with_usage_cost(text: bytes, cost: str) -> bytes:
    """`text` with `"cost": <cost>` as the first member of the outermost object's `usage` object.

    cost: a plain decimal number. An existing cost (some upstreams send their own) is replaced, since parsers would
    disagree on duplicate keys. Without such an object the text is returned unchanged.
    """
    place = usage_cost_place(text)
    return text if place is None else replaced(text, {place: cost.encode()})


def usage_cost_place(text: bytes) -> Place | None:
    """The place that `with_usage_cost` changes."""
    opening = _opening_of_usage(text)
    if opening is None:
        return None
    theirs = find_member(text, b"cost", opening - 1)
    if theirs is not None:
        return Place(theirs.value, theirs.end)
    return Place(opening, opening, '"cost": ', "" if _CLOSING.match(text, opening) else ", ")


def _opening_of_usage(text: bytes) -> int | None:
    """The offset after the opening brace of the outermost object's `usage`."""
    candidates = [match.end() for match in _USAGE_OBJECT.finditer(text)]
    if len(candidates) == 1 and _has_usage_object(text):
        return candidates[0]
    if not candidates:
        return None
    member = find_member(text, b"usage")
    return member.value + 1 if member and text[member.value : member.value + 1] == b"{" else None


def _has_usage_object(text: bytes) -> bool:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and isinstance(value.get("usage"), dict)


def end_of_value(text: bytes, start: int) -> int:
    if text[start : start + 1] not in (b"{", b"[", b'"'):
        scalar = _SCALAR.match(text, start)
        return scalar.end() if scalar else start
    depth = 0
    for token in _TOKEN.finditer(text, start):
        found = token.group()
        if found in (b"{", b"["):
            depth += 1
        elif found in (b"}", b"]"):
            depth -= 1
        if depth == 0:
            return token.end()
    return len(text)


def as_json(value: Any) -> str:
    """b"" for values that JSON can't express."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return ""
