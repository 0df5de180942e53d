"""The dialects that callers speak: where each is asked, in which words, and how its streams end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

JSON = dict[str, object]

_TEXT = "hello there"
_TURNS = [{"role": "user", "content": _TEXT}]


@dataclass(frozen=True, slots=True)
class Spoken:
    """question: what is asked besides the model. maximum: the name of the field that bounds the answer.

    end: what the last event of a whole stream contains; empty if there are no streams.
    """

    path: str
    question: JSON
    maximum: str = "max_tokens"
    end: bytes = b"data: [DONE]"


CHAT = "chat"
SPOKEN: Mapping[str, Spoken] = {
    CHAT: Spoken("/v1/chat/completions", {"messages": _TURNS}),
    "responses": Spoken(
        "/v1/responses", {"input": _TEXT, "store": False}, "max_output_tokens", b"event: response.completed"
    ),
    "messages": Spoken("/v1/messages", {"messages": _TURNS, "max_tokens": 1000}, end=b"event: message_stop"),
    "completions": Spoken("/v1/completions", {"prompt": _TEXT}),
    "embeddings": Spoken("/v1/embeddings", {"input": _TEXT}, end=b""),
}
DIALECTS_OF: Mapping[str, Mapping[str, int]] = {
    "openai": {CHAT: 4, "responses": 3, "messages": 3, "completions": 1, "embeddings": 1},
    "anthropic": {CHAT: 3, "responses": 3, "messages": 4},
}
"""By provider: what can be asked of it, and how often that is."""


def body_of(dialect: str, model: str, *, is_stream: bool, max_tokens: int | None) -> JSON:
    spoken = SPOKEN[dialect]
    body: JSON = {"model": model, **spoken.question}
    if spoken.end:
        body["stream"] = is_stream
    if max_tokens is not None and spoken.end:
        body[spoken.maximum] = max_tokens
    return body
