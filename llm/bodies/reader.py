"""The process that reads one large JSON text: `python -m llm.bodies.reader request|reply SIZE MAX_VALUES`.

The text is on standard input; MAX_VALUES bounds a request's values. Standard output gets a line that describes what
follows, then the text without its long strings, as JSON, then those strings. It imports little, since it is started for
each text.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

import orjson

from llm.dialects.json_size import count_values, is_readable_reply
from llm.dialects.json_text import find_members, replaced, usage_cost_place
from llm.dialects.money_fields import may_hold_money, money_places
from llm.dialects.strict_json import MAX_DEPTH, load_counted
from llm.errors import InvalidRequest

# 32 MB take half a second, most of it in texts full of escapes.
_MAX_CPU_SECONDS = 20
# Multiples of a text's size: its bytes, its objects, and both once more when written; in addition to Python itself.
_MEMORY_PER_BYTE = 20
_OWN_MEMORY = 512 * 1024**2
_NICENESS = 5

LONG_TEXT_CHARACTERS = 64 * 1024
# Only a few fields of a reply are read, none deeply nested; everything beyond so many values is omitted.
MAX_KEPT_VALUES = 50_000
# Upstreams never state this many prices in one reply.
_MAX_MONEY_PLACES = 10_000

Path = tuple[str | int, ...]


def main() -> None:
    kind, size, max_values = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _limit_self(size)
    # Nothing is freed before the end, so a collection would find nothing.
    gc.disable()
    raw = sys.stdin.buffer.read()
    head, value = _read_request(raw, max_values) if kind == "request" else _read_reply(raw)
    texts = list(take_long_texts(value))
    rest = orjson.dumps(value)
    head |= {"rest_bytes": len(rest), "texts": [(path, len(text)) for path, text in texts]}
    # The process that asked may have been killed.
    with contextlib.suppress(BrokenPipeError):
        for piece in (orjson.dumps(head), b"\n", rest, *(text for _, text in texts)):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    # Skips deallocation: the operating system is faster.
    os._exit(0)


def _limit_self(size: int) -> None:
    # This delays only its own caller, so it yields to what delays everyone.
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_SECONDS, _MAX_CPU_SECONDS))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        memory = _OWN_MEMORY + size * _MEMORY_PER_BYTE
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _read_request(raw: bytes, max_values: int) -> tuple[dict[str, Any], Any]:
    try:
        values = count_values(raw, limit=max_values)
        body = load_counted(raw, values)
    except InvalidRequest as error:
        return {"refusal": error.message}, {}
    return {"values": values, "members": {name: [*place] for name, place in find_members(raw).items()}}, body


def _read_reply(raw: bytes) -> tuple[dict[str, Any], Any]:
    """{} if it isn't JSON, or has more values than any request can have asked for."""
    value: Any = {}
    if is_readable_reply(raw):
        with contextlib.suppress(orjson.JSONDecodeError):
            value = orjson.loads(raw)
    is_object = bool(value) and type(value) is dict
    money = money_places(raw) if is_object and may_hold_money(raw) else []
    if len(money) > _MAX_MONEY_PLACES:
        value, is_object, money = {}, False, []
    prune(value)
    place = usage_cost_place(replaced(raw, dict.fromkeys(money, b""))) if is_object else None
    return {"money_places": [[*each] for each in money], "cost_place": place and [*place]}, value


def prune(value: Any, *, limit: int = MAX_KEPT_VALUES) -> None:
    """Empty all lists and objects beyond this many values, level by level, so that the outermost are kept."""
    level = [value]
    for depth in range(MAX_DEPTH):
        deeper: list[Any] = []
        for node in level:
            if type(node) is not dict and type(node) is not list:
                continue
            if len(node) > limit or depth == MAX_DEPTH - 1:
                node.clear()
            limit -= len(node)
            deeper.extend(node.values() if type(node) is dict else node)
        level = deeper


def take_long_texts(value: Any) -> Iterator[tuple[Path, bytes]]:
    """Moves long texts out, each with its path, leaving "" in their places."""
    level: list[tuple[Path, Any]] = [((), value)] if type(value) is dict or type(value) is list else []
    while level:
        path, node = level.pop()
        for step, child in list(node.items() if type(node) is dict else enumerate(node)):
            if type(child) is str and len(child) > LONG_TEXT_CHARACTERS:
                node[step] = ""
                yield (*path, step), child.encode()
            elif type(child) is dict or type(child) is list:
                level.append(((*path, step), child))


if __name__ == "__main__":
    main()
