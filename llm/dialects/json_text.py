"""Finds and changes a member of a JSON text without writing the rest anew.

A reply goes through as its bytes: numbers, spaces and unknown fields stay as the provider wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"\s*+:\s*+")
_SCALAR = re.compile(rb"[^\s,}\]]++")
_SPACE = re.compile(rb"\s*+")
# An unescaped quote on both sides: no text inside a string looks like this.
_USAGE_OBJECT = re.compile(rb'"usage"\s*+:\s*+\{')


class Member(NamedTuple):
    """Offsets into the text: of the key's first quote, the value's first byte, and the byte after the value."""

    key: int
    value: int
    end: int


def find_member(text: bytes, key: bytes, start: int = 0) -> Member | None:
    """The member called `key` of the first object at or after `start`; not of an object inside it."""
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
    """`text` without this member of its outermost object, and without the comma that parted it from its neighbour."""
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
    """`text`, an object that has members but none of these, with these at its end."""
    return text.rstrip()[:-1] + b"," + orjson.dumps(members)[1:]


def with_usage_cost(text: bytes, cost: str) -> bytes:
    """`text` with `"cost": <cost>` as the first member of the outermost object's `usage` object.

    cost: a plain decimal number. A cost that stands there already (some upstreams send their own) is replaced, since
    of two equal keys each parser would pick its own. Without such an object the text is returned as it is.
    """
    opening = _opening_of_usage(text)
    if opening is None:
        return text
    number = cost.encode()
    theirs = find_member(text, b"cost", opening - 1)
    if theirs is not None:
        return text[: theirs.value] + number + text[theirs.end :]
    comma = b"" if text[opening:].lstrip().startswith(b"}") else b", "
    return text[:opening] + b'"cost": ' + number + comma + text[opening:]


def _opening_of_usage(text: bytes) -> int | None:
    """The offset behind the brace that opens the outermost object's `usage`."""
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
