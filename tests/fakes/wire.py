"""What the four wire formats share: how a request is read, how tokens are counted, what a reply consists of.

Tokens are a pure function of the text, so that a test can work them out by hand:

    text                   its words, as `str.split` sees them
    a request              3 + for each message (4 + its text) + 7 for each tool that is offered
    an image, file, sound  85
    a tool call            8 + the words of its arguments
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.fakes.ledger import JSON, Counts
from tests.fakes.scripts import Script

REQUEST_TOKENS = 3
MESSAGE_TOKENS = 4
TOOL_TOKENS = 7
MEDIA_TOKENS = 85
TOOL_CALL_TOKENS = 8

TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


class BadRequestError(Exception):
    """A request the provider would refuse with a 400; the message is for the caller."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    raw: bytes
    body: JSON

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def marker(self) -> str | None:
        """What the caller tagged the request with: OpenAI's `user`, Anthropic's `metadata.user_id`."""
        metadata = self.body.get("metadata")
        marker = self.body.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else None)
        return None if marker is None else str(marker)

    @property
    def credential(self) -> str | None:
        if key := self.headers.get("x-api-key"):
            return key
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the reply calls; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What matters of a request for the reply and the bill; the cache's tokens are inside `tokens`."""

    tokens: int
    last_user_text: str = ""
    tool: ToolCall | None = None
    wants_json: bool = False
    max_tokens: int | None = None
    choices: int = 1
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """What one choice of the reply says: pieces of text, one an event, or a tool call."""

    pieces: tuple[str, ...] = ()
    tool: ToolCall | None = None
    is_cut_short: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        if self.tool is not None:
            return TOOL_CALL_TOKENS + count_tokens(self.tool.arguments)
        return count_tokens(self.text)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply in its dialect, whole (`body`) or streamed (`events`, the last of which ends the stream).

    completion_after: completion tokens billed once that event is out. usage_event: which one carries `usage`.
    """

    response_id: str
    counts: Counts
    usage: JSON | None
    body: bytes = b""
    events: Sequence[bytes] = ()
    completion_after: Sequence[int] = ()
    usage_event: int | None = None


class Wire(Protocol):
    """One wire format; each is a module with these names."""

    DIALECT: str

    def read_prompt(self, body: JSON) -> Prompt:
        """Raises BadRequestError."""

    def build_reply(self, asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply: ...

    def error_body(self, status: int, message: str, code: str | None, request_id: str) -> bytes: ...

    def error_event(self, message: str) -> bytes: ...

    def reply_headers(self, request_id: str) -> dict[str, str]: ...


def count_tokens(text: str) -> int:
    """The words of the text."""
    return len(text.split())


def text_of(content: object) -> str:
    """The text parts of a message's content, joined by blanks."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("type") in TEXT_PARTS)


def content_tokens(content: object) -> int:
    """Tokens of a message's content: words, and a flat figure for each part that isn't text."""
    if isinstance(content, str):
        return count_tokens(content)
    return sum(_part_tokens(part) for part in content) if isinstance(content, list) else 0


def _part_tokens(part: Any) -> int:
    if isinstance(part, str):
        return count_tokens(part)
    kind = part.get("type")
    if kind in TEXT_PARTS:
        return count_tokens(str(part["text"]))
    if kind == "tool_result":
        return content_tokens(part.get("content"))
    return TOOL_CALL_TOKENS if kind == "tool_use" else MEDIA_TOKENS


def messages_of(body: JSON, name: str) -> list[JSON]:
    """The request's list of messages. Raises BadRequestError when it is no list of objects, or empty."""
    messages = body.get(name)
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise BadRequestError(f"Invalid value for '{name}': expected a non-empty array of messages.")
    return messages


def prompt_tokens(contents: Sequence[object], *, tools: int = 0) -> int:
    """Tokens of a request from its messages' contents and the number of tools it offers."""
    return REQUEST_TOKENS + sum(MESSAGE_TOKENS + content_tokens(part) for part in contents) + TOOL_TOKENS * tools


def last_user_text(messages: Sequence[JSON]) -> str:
    """The last text of the last message if the user said it: coding agents put reminders of their own before it,
    and some behind it, as the system's.

    A tool's result that came back is nobody's wish for another.
    """
    said = [message for message in messages if message.get("role") not in ("system", "developer")][-1:]
    content = said[0].get("content") if said and said[0].get("role") == "user" else ""
    texts = [part for part in content if _is_text(part)] if isinstance(content, list) else []
    return str(texts[-1]["text"]) if texts else text_of(content)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in TEXT_PARTS


def mentions_tool(text: str) -> bool:
    return re.search(r"\btools?\b", text, re.IGNORECASE) is not None
