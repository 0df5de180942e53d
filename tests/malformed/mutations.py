"""Requests that no caller should send: seeded changes of valid ones. The same seed and number give the same request."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from tests.malformed.bodies import STREAMED, VALID_BODIES

Place = tuple[Any, Any]
"""A container of the body, and the key or index of one of its values."""

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**63, -(2**63), 2**64 - 1),
    *(
        "",
        " ",
        "\0",
        "true",
        "1",
        "null",
        "é" * 300,
        "x" * 5000,
        "\ud800 surrogate",
        "\u202e\ufeff",
        "🙂",
        "../..",
        "%s{0}",
    ),
    *([], {}, [[]], [None], {"": None}, {"type": None}, [{}], {"type": "text"}, [0], [""], {"a": {"b": {"c": []}}}),
    *("none", "auto", "required", "any", "text", "image", "tool_use", "system", "developer", "tool", "function"),
)
ODD_BYTES = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b'"',
    b"}",
    b"]",
    b"{",
    b",",
    b"NaN",
    b"1e999",
    b"\\u0000",
    b"\\ud800",
)
ODD_HEADERS: dict[str, tuple[bytes, ...]] = {
    "content-type": (b"", b"text/plain", b"application/json; charset=utf-16", b"multipart/form-data", b"\xff", b"/"),
    "content-encoding": (b"gzip", b"br", b"identity", b"", b"\xff"),
    "accept": (b"text/html", b"", b"*/*;q=x", b"\xff"),
    "authorization": (
        b"",
        b"Bearer",
        b"Bearer  ",
        b"Basic eDp5",
        b"Bearer sk-unknown",
        b"Bearer \xff\xfe",
        b"x" * 5000,
    ),
    "x-api-key": (b"", b"unknown", b"\xe9"),
    "api-key": (b"", b"unknown", b"\xe9"),
    "x-llm-tags": (b"", b"a", b"a=b", b"a=b,a=c", b"=", b",,,", b"a=\xe9", b"a=b" * 2000, b"a=b\tc"),
    "idempotency-key": (b"", b" ", b"a", b"x" * 255, b"x" * 256, b"\xe9", b"a\tb", b"a,b", b"\xf0\x9f\x99\x82"),
    "anthropic-version": (b"", b"1999-01-01", b"\xff", b"x" * 3000),
    "anthropic-beta": (b"", b",", b"a,b", b"\xff", b"x" * 3000),
    "openai-organization": (b"org", b"\xff"),
    "openai-beta": (b"", b"\xff"),
    "x-request-id": (b"", b"\xff", b"x" * 3000),
    "x-stainless-retry-count": (b"-1", b"x"),
    "traceparent": (b"00-0-0-0", b"\xff"),
    "cookie": (b"a=b", b"\xff=\xff"),
    "origin": (b"null", b"\xff"),
    "expect": (b"100-continue",),
    "forwarded": (b"for=\xff",),
    "x-forwarded-for": (b"999.1.1.1", b"\xff"),
}
QUERIES = ("?beta=true", "?", "?%00", "?%ff=%ff", "?stream=true&stream=false", "?" + "a" * 3000)


@dataclass(frozen=True)
class MalformedRequest:
    """headers: beside the content type and the key, which they replace; one name may be there twice."""

    name: str
    path: str
    query: str
    headers: tuple[tuple[str, bytes], ...]
    body: bytes


def malform(path: str, *, seed: int, number: int) -> MalformedRequest:
    """One to four changes of the dialect's valid body; often the bytes of it, the headers or the query too."""
    name = f"{seed} {path} {number}"
    chance = random.Random(name)  # must be the same each time
    body = copy.deepcopy(VALID_BODIES[path])
    for key in [key for key in body if key != "model" and chance.random() < 0.3]:
        del body[key]
    if path in STREAMED and chance.random() < 0.4:
        body.update(copy.deepcopy(STREAMED[path]))
    for _ in range(chance.choice((1, 1, 2, 4))):
        chance.choice(_CHANGES)(chance, body)
    raw = _written(body)
    if chance.random() < 0.2:
        raw = chance.choice(_BYTE_CHANGES)(chance, raw)
    headers = _headers(chance) if chance.random() < 0.3 else ()
    query = chance.choice(QUERIES) if chance.random() < 0.1 else ""
    return MalformedRequest(name, path, query, headers, raw)


def _written(body: dict[str, Any]) -> bytes:
    """What UTF-8 can't hold, as escapes."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


def _headers(chance: random.Random) -> tuple[tuple[str, bytes], ...]:
    names = chance.choices(list(ODD_HEADERS), k=chance.choice((1, 1, 2, 3)))
    return tuple((name, chance.choice(ODD_HEADERS[name])) for name in names)


# --- Changes of a body ------------------------------------------------------------------------------------------------


def _places(value: Any) -> list[Place]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _replace(chance: random.Random, body: dict[str, Any]) -> None:
    if places := _places(body):
        container, key = chance.choice(places)
        container[key] = copy.deepcopy(chance.choice(ODD_VALUES))


def _replace_member(chance: random.Random, body: dict[str, Any]) -> None:
    """Of the body itself: as often as all that is deep inside."""
    if body:
        body[chance.choice(list(body))] = copy.deepcopy(chance.choice(ODD_VALUES))


def _remove(chance: random.Random, body: dict[str, Any]) -> None:
    if places := _places(body):
        container, key = chance.choice(places)
        del container[key]


def _rename(chance: random.Random, body: dict[str, Any]) -> None:
    if places := [(container, key) for container, key in _places(body) if isinstance(container, dict)]:
        container, key = chance.choice(places)
        container[chance.choice(("", "\0", key.upper(), f"{key}s", "type", "content", "\ud800"))] = container.pop(key)


def _wrap(chance: random.Random, body: dict[str, Any]) -> None:
    if places := _places(body):
        container, key = chance.choice(places)
        value = container[key]
        container[key] = chance.choice(([value], {"type": value}, [[value]], {"content": value}, [value, value]))


def _unwrap(chance: random.Random, body: dict[str, Any]) -> None:
    if places := [(container, key) for container, key in _places(body) if container[key] and _inside(container[key])]:
        container, key = chance.choice(places)
        container[key] = chance.choice(_inside(container[key]))


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _transplant(chance: random.Random, body: dict[str, Any]) -> None:
    """A value of another dialect in the place of one of ours, or beside ours."""
    other = copy.deepcopy(VALID_BODIES[chance.choice(list(VALID_BODIES))])
    container, key = chance.choice(_places(other))
    if chance.random() < 0.5 and isinstance(key, str):
        body[key] = container[key]
    elif places := _places(body):
        ours, place = chance.choice(places)
        ours[place] = container[key]


def _repeat(chance: random.Random, body: dict[str, Any]) -> None:
    lists = [container[key] for container, key in _places(body) if isinstance(container[key], list) and container[key]]
    if lists:
        chosen = chance.choice(lists)
        chosen.extend(copy.deepcopy(chosen[:3] * chance.choice((1, 1, 40))))


def _deepen(chance: random.Random, body: dict[str, Any]) -> None:
    if places := _places(body):
        container, key = chance.choice(places)
        for _ in range(chance.choice((3, 60, 140))):
            container[key] = [container[key]]


_CHANGES: tuple[Callable[[random.Random, dict[str, Any]], None], ...] = (
    *(_replace, _replace, _replace, _replace_member, _replace_member),
    *(_remove, _rename, _wrap, _unwrap, _transplant, _transplant, _repeat, _deepen),
)


# --- Changes of its bytes ---------------------------------------------------------------------------------------------


def _cut(chance: random.Random, raw: bytes) -> bytes:
    return raw[: chance.randrange(len(raw))]


def _insert(chance: random.Random, raw: bytes) -> bytes:
    at = chance.randrange(len(raw) + 1)
    return raw[:at] + chance.choice(ODD_BYTES) + raw[at:]


def _flip(chance: random.Random, raw: bytes) -> bytes:
    at = chance.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]


def _double_a_piece(chance: random.Random, raw: bytes) -> bytes:
    start, end = sorted(chance.choices(range(len(raw) + 1), k=2))
    return raw[:end] + raw[start:end] + raw[end:]


def _recode(chance: random.Random, raw: bytes) -> bytes:
    return raw.decode().encode(chance.choice(("utf-16", "utf-32", "utf-7", "utf-8-sig")))


def _begin_with(chance: random.Random, raw: bytes) -> bytes:
    """A key that the rest of the body has once more, or a value that is no object."""
    beginning = chance.choice((b'{"model":"gpt-4o",', b'{"stream":true,', b"[", b'"', b"null"))
    return beginning + raw[beginning.startswith(b"{") :]


_BYTE_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_cut, _insert, _insert, _flip, _flip, _double_a_piece, _recode, _begin_with),
)
