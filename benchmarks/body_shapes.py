"""What bodies and replies can be made of, as far as it takes a parser its time: `benchmarks.bodies` sends each.

A shape is a function of a size in bytes. None is a way that anybody works; all are what anybody can send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

MEGABYTE = 1024**2
# Just under the size above which a body is always read apart, and just under that of the largest body.
JUST_UNDER_4_MB = 4 * MEGABYTE - 64 * 1024
LARGE = 31 * MEGABYTE

_HEAD = b'{"model":"%s","messages":[{"role":"user","content":"Hello"}],"x":'


def body(inner: bytes, *, model: str) -> bytes:
    return _HEAD % model.encode() + inner + b"}"


def _repeated(piece: bytes, size: int, *, begin: bytes, end: bytes) -> bytes:
    return begin + piece * (size // len(piece)) + end


def _text(piece: bytes, size: int) -> bytes:
    return _repeated(piece, size, begin=b'"', end=b'"')


def _list(piece: bytes, size: int) -> bytes:
    return _repeated(piece + b",", size, begin=b"[", end=b"1]")


def _members(pattern: bytes, size: int) -> bytes:
    members = (pattern % number for number in range(size // (len(pattern) + 4)))
    return b"{" + b",".join(members) + b"}"


SHAPES: Mapping[str, Callable[[int], bytes]] = {
    "numbers": lambda size: _list(b"1", size),
    "long numbers": lambda size: _list(b"0.123456789012345", size),
    "short texts": lambda size: _list(b'"a"', size),
    "empty lists": lambda size: _list(b"[]", size),
    "nested lists": lambda size: _list(b"[" * 100 + b"]" * 100, size),
    "objects": lambda size: _list(b'{"role":"user","content":"Hi"}', size),
    "keys": lambda size: _members(b'"k%d":1', size),
    "escaped keys": lambda size: _members(b'"\\u006b%d":1', size),
    "keys of any case": lambda size: _members(b'"Model%dMODEL":1', size),
    "text": lambda size: _text("Once upon a time there lived a k\u00f6nig.".encode(), size),
    "Chinese": lambda size: _text("\u6f22\u5b57".encode(), size),
    "source code": lambda size: _text(b'    if x[\\"a\\"] and {y: 1}:  # a comment\\n', size),
    "escaped quotes": lambda size: _text(b'\\":', size),
    "escapes": lambda size: _text(b"\\u0041", size),
    "no end of a text": lambda size: b'"' + b'\\",' * (size // 3),
}


_LARGE_SHAPES = ("numbers", "text", "escaped quotes")


def messages(size: int, *, model: str) -> bytes:
    """As many messages as a body may have, which are checked one by one; filled up with text to the size."""
    short = b'{"role":"user","content":"Hi"},' * 19_000
    text = _text(b"a", max(0, size - len(short)))
    return b'{"model":"%s","messages":[%s{"role":"user","content":%s}]}' % (model.encode(), short, text)


def requests(model: str) -> Iterator[tuple[str, bytes]]:
    """Each with its name."""
    for size_name, size in (("31 MB", LARGE), ("4 MB", JUST_UNDER_4_MB), ("1 MB", MEGABYTE - 1024)):
        for name, make in SHAPES.items():
            if size < LARGE or name in _LARGE_SHAPES:
                yield f"{name}, {size_name}", body(make(size), model=model)
        yield f"messages, {size_name}", messages(size, model=model)
    # What a process of its own reads and the gateway then goes through: as much as is let pass.
    yield "values at the bound", body(_list(b'"a"', 4 * 99_000), model=model)
    yield "lists at the bound", body(_list(b"[" * 100 + b"]" * 100, 2 * 49_000), model=model)


_REPLY = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop","x":%s}],'
    b'"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}'
)
_CHUNK = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-bench",%s}\n\n'
REPLY_SHAPES = ("numbers", "empty lists", "nested lists", "objects", "text", "source code", "escapes")
_REPLY_BYTES = 30 * MEGABYTE
_EVENT_BYTES = 8 * MEGABYTE


def whole_reply(name: str) -> bytes:
    return _REPLY % SHAPES[name](_REPLY_BYTES)


def text_reply() -> bytes:
    return whole_reply("text").replace(b'"content":"Hello"', b'"content":' + _text(b"Hello, ", _REPLY_BYTES))


def refusal() -> bytes:
    return b'{"error":{"message":"no","x":%s}}' % SHAPES["empty lists"](_REPLY_BYTES)


def streamed_reply(name: str) -> bytes:
    """Three events of megabytes, the first and the last of which are read: one names the model, one the usage."""
    inner = SHAPES[name](_EVENT_BYTES)
    choice = b'"choices":[{"index":0,"delta":{"content":"Hello"},"x":%s}]' % inner
    usage = b'"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}'
    small = b'"choices":[{"index":0,"delta":{"content":"Hello"}}]'
    return _CHUNK % small + (_CHUNK % choice) * 3 + _CHUNK % usage + b"data: [DONE]\n\n"


def lines_reply() -> bytes:
    """One event of millions of lines."""
    return b"data: 1\n" * (_EVENT_BYTES // 8) + b"\n"


def replies() -> Mapping[str, tuple[int, str, Callable[[], bytes]]]:
    """Status, content type and what makes the body, by the model that is asked for."""
    json, events = "application/json", "text/event-stream"
    made: dict[str, tuple[int, str, Callable[[], bytes]]] = {
        "reply long answer": (200, json, text_reply),
        "reply refusal": (400, json, refusal),
        "events lines": (200, events, lines_reply),
    }
    for name in REPLY_SHAPES:
        made[f"reply {name}"] = 200, json, partial(whole_reply, name)
        made[f"events {name}"] = 200, events, partial(streamed_reply, name)
    return made


SMALL_REPLY = _REPLY % b"1"
