"""One JSON object from a request body, or a clear refusal.

orjson is fast, but silently keeps the last of duplicate keys: `{"n": 1, "n": 64}` would mean one thing to our limits
and another to an upstream that keeps the first. Integers beyond 64 bits become floats, as in every JavaScript client:
no field of ours or a provider's is that wide.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

from llm.dialects.json_size import count_values
from llm.errors import InvalidRequest

MAX_DEPTH = 128

# A colon that doesn't follow immediately; the others are counted faster.
_SPACED_KEY_END = re.compile(rb'"\s++:')
# A quote or a colon written as an escape evades the count below.
_ESCAPED_KEY_END = re.compile(rb"\\u00(?:22|3[aA])")
_NOT_A_NUMBER = re.compile(r"-?(?:NaN|Infinity)")


def load_object(raw: bytes) -> dict[str, Any]:
    """Raises InvalidRequest, with a message that names the fault but never quotes more than a key."""
    return load_counted(raw, count_values(raw))


def load_counted(raw: bytes, values: int) -> dict[str, Any]:
    """`load_object` for a text with at most this many values and brackets, already counted."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _refuse(raw, error)
    if type(value) is not dict:
        raise InvalidRequest("The request body must be a JSON object.")
    if values > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise InvalidRequest(f"The request body is nested deeper than {MAX_DEPTH} levels.")
    has_hidden_keys = b"\\u00" in raw and _ESCAPED_KEY_END.search(raw) is not None
    if has_hidden_keys or _key_ends(raw) != orjson.dumps(value).count(b'":'):
        refuse_duplicate_keys(raw)
    return value


def _key_ends(raw: bytes) -> int:
    # Not `findall`: a text full of quoted colons would become a list of millions.
    return raw.count(b'":') + sum(1 for _ in _SPACED_KEY_END.finditer(raw))


def refuse_duplicate_keys(raw: bytes) -> None:
    """The exact check, about ten times slower than the count. raw: valid JSON of bounded depth."""
    # Numbers aren't converted: `int` refuses very long ones with its own error.
    json.loads(raw, object_pairs_hook=_unique, parse_int=len, parse_float=len)


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) == len({key for key, _ in pairs}):
        return
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidRequest(f"The request body repeats the key {_shown(key)} in one object.")
        seen.add(key)


def _shown(key: str) -> str:
    return json.dumps(key[:60], ensure_ascii=True)


def _is_deeper(value: Any, limit: int) -> bool:
    """Level by level: a recursive walk would fall for the attack that it looks for."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _refuse(raw: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    if not raw.strip():
        raise InvalidRequest("The request body is empty; a JSON object is expected.") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The request body is not valid UTF-8.") from None
    if _NOT_A_NUMBER.match(text, error.pos) or _NOT_A_NUMBER.match(text, max(0, error.pos - 1)):
        raise InvalidRequest("The request body contains NaN or Infinity, which JSON does not have.") from None
    raise InvalidRequest(_sentence(error)) from None


def _sentence(error: orjson.JSONDecodeError) -> str:
    where = f"at line {error.lineno}, column {error.colno}"
    if "surrogate" in error.msg:
        return f"The request body contains a lone surrogate (half a character) {where}."
    if "infinity" in error.msg:
        return f"The request body contains a number that is too large {where}."
    if "depth" in error.msg or "recursion" in error.msg.lower():
        return f"The request body is nested deeper than {MAX_DEPTH} levels."
    return f"The request body is not valid JSON: error {where}."
