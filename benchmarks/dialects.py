"""What a call looks like in each dialect: its path, a body of a given size, and what a complete reply must hold."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.embeddings_wire import vector_of

MARKER = "marker00000000"
SYSTEM = "You are a careful assistant. Answer in plain words, say what you do not know, and keep to the question."
QUESTION = "please explain in two or three sentences how a group commit makes many small writes cheap and durable."
DIMENSIONS = 400
"""Of an embedding: in base64 they are nearly as long as the other replies that are compared."""
_MAX_OUTPUT_TOKENS = 1000

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """body: of a model, what fills it up, and whether a stream is asked for.

    last: how a stream ends. reply_mark: what a whole reply must repeat, from the marker of its call and the input.
    """

    path: str
    body: Callable[[str, str, bool], Body]
    last: bytes = b""
    headers: str = ""
    reply_mark: Callable[[bytes, str], bytes] = lambda marker, filler: marker


def request_body(name: str, model: str, *, is_stream: bool, body_bytes: int | None = None) -> tuple[str, str]:
    """The body with MARKER in it, and what it was filled up with to be that long."""
    dialect = DIALECTS[name]
    body = json.dumps(dialect.body(model, "", is_stream))
    filler = "" if body_bytes is None else "x" * (body_bytes - len(body))
    return json.dumps(dialect.body(model, filler, is_stream)), filler


def _plain_chat(model: str, filler: str, is_stream: bool) -> Body:
    return {"model": model, "messages": _turns(filler)} | ({"stream": True} if is_stream else {})


def _chat(model: str, filler: str, is_stream: bool) -> Body:
    """Asks for the usage, as the others get it without being asked."""
    return {
        **_plain_chat(model, filler, is_stream),
        **({"stream_options": {"include_usage": True}} if is_stream else {}),
    }


def _messages(model: str, filler: str, is_stream: bool) -> Body:
    body = {"model": model, "system": SYSTEM + filler, "messages": _turns(filler)[1:], "max_tokens": _MAX_OUTPUT_TOKENS}
    return body | ({"stream": True} if is_stream else {})


def _responses(model: str, filler: str, is_stream: bool) -> Body:
    body = {"model": model, "instructions": SYSTEM + filler, "input": f"{MARKER} {QUESTION}"}
    return body | ({"stream": True} if is_stream else {})


def _embeddings(model: str, filler: str, is_stream: bool) -> Body:
    text = f"{MARKER} {QUESTION} {filler}"
    return {"model": model, "input": text, "dimensions": DIMENSIONS, "encoding_format": "base64"}


def _turns(filler: str) -> list[Body]:
    return [{"role": "system", "content": SYSTEM + filler}, {"role": "user", "content": f"{MARKER} {QUESTION}"}]


def _vector(marker: bytes, filler: str) -> bytes:
    numbers = vector_of(f"{marker.decode()} {QUESTION} {filler}", DIMENSIONS)
    return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *numbers))


_DONE = b"data: [DONE]\n\n"

DIALECTS = {
    "plain chat": Dialect("/v1/chat/completions", _plain_chat, _DONE),
    "chat": Dialect("/v1/chat/completions", _chat, _DONE),
    "messages": Dialect("/v1/messages", _messages, b'"message_stop"', headers="anthropic-version: 2023-06-01\r\n"),
    "responses": Dialect("/v1/responses", _responses, b'"type":"response.completed"'),
    "embeddings": Dialect("/v1/embeddings", _embeddings, reply_mark=_vector),
}
