"""Recorded replies of real providers, to be served again as they came.

One JSON file a case: `{"id", "dialect", "stream", "request": {"path", "body"}, "response": {"status", "headers",
"body"}}`, where the response's body is the exact text. The directory is the caller's business and may not exist.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from tests.fakes.ledger import JSON, Counts

# The ends of an event: a blank line, in either kind of line end.
EVENT_END = re.compile(rb"\r?\n\r?\n")
# Set by the server itself, and wrong if they were copied from another connection.
CONNECTION_HEADERS = frozenset({"content-length", "transfer-encoding", "content-encoding", "connection", "date"})


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded request and its reply; `body` is the reply's exact bytes."""

    id: str
    dialect: str
    is_stream: bool
    path: str
    request: JSON
    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def from_json(cls, case: Mapping[str, Any]) -> Self:
        response = case["response"]
        headers = {name.lower(): value for name, value in response.get("headers", {}).items()}
        return cls(
            id=case["id"],
            dialect=case["dialect"],
            is_stream=bool(case["stream"]),
            path=case["request"]["path"],
            request=case["request"]["body"],
            status=response["status"],
            headers={name: value for name, value in headers.items() if name not in CONNECTION_HEADERS},
            body=response["body"].encode(),
        )

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def events(self) -> tuple[bytes, ...]:
        """The body cut after each event's blank line; joined again it is the body, to the byte."""
        ends = [match.end() for match in EVENT_END.finditer(self.body)]
        starts = [0, *ends]
        pieces = [self.body[start:end] for start, end in zip(starts, [*ends, len(self.body)], strict=True)]
        return tuple(piece for piece in pieces if piece)

    def usage(self) -> JSON | None:
        """The usage the provider reported, None when there is none. Anthropic's stream reports it in two events, of
        which the later one wins name by name; figures that are null are left out."""
        merged: JSON = {}
        for document in self._documents():
            for holder in (document, document.get("message"), document.get("response")):
                if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                    merged |= {name: value for name, value in holder["usage"].items() if value is not None}
        return merged or None

    def counts(self) -> Counts:
        """The reported usage in the ledger's terms; zeros when nothing was reported."""
        return counts_of(self.usage() or {}, dialect=self.dialect)

    def usage_event(self) -> int | None:
        """The index of the last event with a usage object in it."""
        marks = [index for index, event in enumerate(self.events()) if re.search(rb'"usage"\s*:\s*\{', event)]
        return marks[-1] if marks else None

    def _documents(self) -> Iterator[JSON]:
        if not self.is_event_stream:
            yield _parsed(self.body)
            return
        for event in self.events():
            for line in event.splitlines():
                if line.startswith(b"data:"):
                    yield _parsed(line.removeprefix(b"data:"))


def load(directory: Path, dialect: str | None = None) -> tuple[Recording, ...]:
    """The directory's recordings by name, of one dialect or of all; none if there is no such directory."""
    pattern = f"{dialect}-*.json" if dialect else "*.json"
    return tuple(Recording.from_json(orjson.loads(path.read_bytes())) for path in sorted(directory.glob(pattern)))


def counts_of(usage: Mapping[str, Any], *, dialect: str) -> Counts:
    """A provider's usage object in the ledger's terms, where totals include their parts."""
    return _anthropic_counts(usage) if dialect == "anthropic.messages" else _openai_counts(usage)


def _anthropic_counts(usage: Mapping[str, Any]) -> Counts:
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    written_1h = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens", 0)
    return Counts(
        prompt_tokens=(usage.get("input_tokens") or 0) + read + written,
        completion_tokens=usage.get("output_tokens") or 0,
        cache_read_tokens=read,
        cache_write_5m_tokens=written - written_1h,
        cache_write_1h_tokens=written_1h,
    )


def _openai_counts(usage: Mapping[str, Any]) -> Counts:
    """Both spellings: chat's prompt/completion and the responses' input/output."""
    inputs = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    outputs = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return Counts(
        prompt_tokens=usage.get("prompt_tokens", usage.get("input_tokens", 0)),
        completion_tokens=usage.get("completion_tokens", usage.get("output_tokens", 0)),
        cache_read_tokens=inputs.get("cached_tokens") or 0,
        reasoning_tokens=outputs.get("reasoning_tokens") or 0,
        audio_input_tokens=inputs.get("audio_tokens") or 0,
        audio_output_tokens=outputs.get("audio_tokens") or 0,
    )


def _parsed(text: bytes) -> JSON:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
