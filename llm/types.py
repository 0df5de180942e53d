"""Types that travel between the layers: frozen, no I/O, no Django.

A caller's body becomes a `ChatRequest`; a provider answers with a `ChatResponse`, or with a stream of `str` (text),
`ThinkingDelta`, `ToolCallDelta` and one final `StreamEnd`, possibly with `Heartbeat`s. `TokenCounts` is the only form
in which figures reach the books.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import Any, Literal, NamedTuple

import orjson

from llm.enums import LimitMetric

Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one call.

    Parts are subsets of their totals: `cache_*` and `audio_input_tokens` are inside `prompt_tokens`;
    `reasoning_tokens` and `audio_output_tokens` are inside `completion_tokens`.
    `extra_meters` holds rare billable units (name -> whole units) for which there is no column.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    extra_meters: Mapping[str, int] = field(default_factory=dict)

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


TOKEN_FIELDS: tuple[str, ...] = tuple(f.name for f in fields(TokenCounts) if f.name.endswith("_tokens"))

END_USER_LENGTH = 32
MAX_END_USER_CHARACTERS = 256
MAX_FLAGS_LENGTH = 200
MAX_TAGS = 8
MAX_TAG_KEY_CHARACTERS = 64
MAX_TAG_VALUE_CHARACTERS = 128
"""Bounds of a row's texts."""

_MAX_WITH_SESSION = 4096
_USER_OF_SESSION = re.compile(r"(user_[0-9a-f]{1,64}_account_[0-9a-f-]{0,36})_session_[0-9a-f-]{1,36}")

COST_UNKNOWN = "cost_unknown"
"""Flag of a call that had a cost, until an adjustment said that no price is known for its usage. On adjustments, never
on rows: a row without a cost shows that itself. Databases search for this text, so no other flag may contain it.
"""


def clean_text(value: object, *, limit: int) -> str:
    """A text that the books can hold: no NUL or other control characters, no lone surrogates, bounded in length."""
    if not isinstance(value, str) or not value:
        return ""
    if not (value.isascii() and value.isprintable()):
        value = "".join(character for character in value if character.isprintable())
        value = value.encode("utf-8", "ignore").decode()
    return value[:limit]


def read_end_user(value: object) -> str:
    """The name under which a call's end user is recorded; "" for what names nobody.

    Without the session that Claude Code sends with it: each session would be another end user.
    """
    name = _without_session(value) if isinstance(value, str) else ""
    if len(name) > MAX_END_USER_CHARACTERS:
        return ""
    name = clean_text(name, limit=MAX_END_USER_CHARACTERS)
    return name if name.strip() else ""


def _without_session(text: str) -> str:
    """In both forms that Claude Code has had. Source: its package, 2.1.197, read 2026-12."""
    if "session" not in text or len(text) > _MAX_WITH_SESSION:
        return text
    if match := _USER_OF_SESSION.fullmatch(text):
        return match[1]
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if not isinstance(members, dict) or any(isinstance(each, dict | list) for each in members.values()):
        return text
    session = members.pop("session_id", None)
    return orjson.dumps(members).decode() if session is not None and members else text


class Service(NamedTuple):
    """The provider's own words for how it served a call; each affects the cost. Empty is standard."""

    service_tier: str = ""
    speed: str = ""
    inference_geo: str = ""


STANDARD_SERVICE = Service()


class UpstreamCost(NamedTuple):
    """The provider's figure of what a call costs us. pico: pico-units of USD. is_rounded: it had more decimals."""

    pico: int
    is_rounded: bool = False


class LimitState(NamedTuple):
    """What a limit leaves while a call holds its maximum. amount, remaining, held: in units. resets_at: None for never.

    held: the call's own share, which it releases except for what it uses.
    """

    metric: LimitMetric
    amount: int
    remaining: int
    resets_at: datetime | None
    held: int = 0


@dataclass(frozen=True, slots=True)
class TextPart:
    """cache: a hint that the prompt up to here will be repeated, in Anthropic's form (`cache_control`)."""

    text: str
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ImagePart:
    """url: an https URL, or a data URL (`data:image/png;base64,...`). cache: as of a text."""

    url: str
    detail: str | None = None
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FilePart:
    """url: a data URL (`data:application/pdf;base64,...`), or an https URL. cache: as of a text."""

    url: str
    filename: str = ""
    cache: Mapping[str, Any] | None = None


ContentPart = TextPart | ImagePart | FilePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """arguments: the JSON text of one object, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """One block of a model's thinking before its answer. Only the provider that wrote it can verify it.

    signature: proves the text, which may be withheld and then is empty. data: the encrypted form of a redacted block,
    which has no text. With neither, the thinking can be read but not sent back.
    """

    text: str = ""
    signature: str = ""
    data: str = ""

    @property
    def can_return(self) -> bool:
        """Whether its provider accepts it in the next turn."""
        return bool(self.signature or self.data)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Role
    content: str | tuple[ContentPart, ...] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    thinking: tuple[Thinking, ...] = ()

    @property
    def text(self) -> str:
        """The message's text, parts joined; images and files have none."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Tool:
    """parameters: a JSON schema of one object. is_strict: calls must match it exactly. cache: as for a text."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_strict: bool = False
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """mode `tool` forces the tool called `name`."""

    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat, independent of any wire format. `model` is the provider's name for it."""

    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    response_format: Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    user: str | None = None


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """A whole reply. usage: None if the upstream reported none (then the gateway counts).

    service_tier, speed, inference_geo: how it was served, in the provider's words. upstream_cost: the provider's figure
    of what the call costs us.
    """

    reply: str
    model: str
    usage: TokenCounts | None = None
    finish_reason: FinishReason = "stop"
    tool_calls: tuple[ToolCall, ...] = ()
    response_id: str = ""
    service_tier: str = ""
    speed: str = ""
    inference_geo: str = ""
    upstream_cost: UpstreamCost | None = None
    thinking: tuple[Thinking, ...] = ()


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of one `Thinking` in a stream. index: which one, from 0. A signature or data comes in one piece."""

    index: int
    text: str = ""
    signature: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of one tool call in a stream: `id` and `name` come with the first piece of each `index`."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last item of a complete stream; without it, the stream was cut. usage: None if not reported."""

    model: str
    usage: TokenCounts | None = None
    finish_reason: FinishReason = "stop"
    response_id: str = ""
    service_tier: str = ""
    speed: str = ""
    inference_geo: str = ""
    upstream_cost: UpstreamCost | None = None


class Heartbeat(Enum):
    """A sign of life in a stream, which isn't passed on; optional for providers."""

    HEAD = "the provider's status and headers have come"
    EVENT = "an event without anything for the caller"
    PING = "a comment or a ping, which keeps a connection open"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an upstream has reported about a call. counts: None if it reported no usage.

    absurd_usage: figures that can't be true (negative, parts above their total), raw; `counts` is then None.
    is_final: `counts` are the whole call's, even if the reply was cut after them. Running totals of a stream aren't.
    is_input_final: the tokens of the prompt are the whole call's, whatever becomes of the reply.
    upstream_cost: the upstream's figure of what the call costs us. reports_tools: it reported the units of its own
    tools, even if zero.
    """

    counts: TokenCounts | None = None
    absurd_usage: Mapping[str, Any] | None = None
    model: str = ""
    response_id: str = ""
    service: Service = STANDARD_SERVICE
    is_final: bool = False
    is_input_final: bool = False
    upstream_cost: UpstreamCost | None = None
    reports_tools: bool = False


StreamItem = str | ThinkingDelta | ToolCallDelta | Heartbeat | Reading | StreamEnd
"""A Reading is what has been reported so far, for a stream that breaks off; optional for providers."""
