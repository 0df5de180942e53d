"""What every wire format offers the gateway. Dialects are pure: bytes and types in, bytes and types out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from llm.enums import Dialect
from llm.errors import GatewayError
from llm.types import (
    STANDARD_SERVICE,
    ChatRequest,
    ChatResponse,
    LimitState,
    Service,
    StreamItem,
    TokenCounts,
    UpstreamCost,
)


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A caller's request, checked as far as the gateway depends on it.

    body: the JSON object as sent. raw: its bytes. model: the public name asked for, "" for the default model.
    wants_stream_usage: the caller asked for the figures on the stream.
    max_output_tokens: the caller's own ceiling for one choice, None when it gave none. choices: `n`.
    routing_fields: those present by which an upstream could choose another model. asked_service: how it
    is to be served.
    """

    dialect: Dialect
    body: Mapping[str, Any]
    raw: bytes
    model: str
    is_stream: bool
    wants_stream_usage: bool = False
    max_output_tokens: int | None = None
    choices: int = 1
    routing_fields: tuple[str, ...] = ()
    asked_service: Service = STANDARD_SERVICE


class Extent(NamedTuple):
    """How much a request may make the upstream read, at most.

    input_tokens: None where it has parts (images, sound, files) whose size in tokens only the upstream knows.
    unbounded: what it asks for that costs beside its tokens, without any bound (a web search); "" for nothing.
    """

    input_tokens: int | None
    unbounded: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an upstream said of a call. counts: None when it reported no usage.

    absurd_usage: figures that cannot be true (negative, parts above their total), raw; `counts` is then None.
    is_final: `counts` are the whole call's, even if the reply was cut after them. Running totals of a stream are not.
    upstream_cost: what the upstream says that the call costs us.
    """

    counts: TokenCounts | None = None
    absurd_usage: Mapping[str, Any] | None = None
    model: str = ""
    response_id: str = ""
    service: Service = STANDARD_SERVICE
    is_final: bool = False
    upstream_cost: UpstreamCost | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A whole HTTP answer in a dialect."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class StreamReader(Protocol):
    """Follows a pass-through stream: bytes in as they come, bytes out as the caller may have them.

    The stream's last event is held back: it comes from `finish()`, once the books are settled.
    """

    @property
    def has_data(self) -> bool:
        """Whether an event with data has come (comments do not count)."""

    @property
    def is_complete(self) -> bool:
        """Whether the dialect's own last event has come."""

    @property
    def failure(self) -> str | None:
        """The type of the error event that the upstream sent in mid-stream, or None."""

    @property
    def error(self) -> Mapping[str, Any] | None:
        """That event as it came. It may hold anything: only `llm.providers.failures` reads it."""

    def feed(self, data: bytes) -> bytes:
        """Take what the upstream sent; return what goes to the caller now (may be empty).

        Raises UpstreamFailed when an unfinished event is larger than we hold.
        """

    def finish(self, *, cost: str | None = None) -> bytes:
        """The held-back rest. cost: USD as a plain decimal number, put into the usage event if the caller gets one."""

    def reading(self) -> Reading:
        """What the upstream has said so far."""

    def output_text(self) -> str:
        """The text generated so far (tool arguments and reasoning included), to be counted when no usage came."""

    @property
    def dropped_characters(self) -> int:
        """Characters of generated text beyond what `output_text` keeps (a bound on memory); they count too."""


class StreamWriter(Protocol):
    """Renders a translated stream, event by event."""

    def start(self) -> bytes: ...

    def item(self, item: StreamItem) -> bytes:
        """One `str` or `ToolCallDelta`; b"" for the StreamEnd, which belongs to `finish`."""

    def finish(self, response: ChatResponse, *, cost: str | None = None) -> bytes:
        """The last events. response: the whole reply with its final figures (`usage` is never None)."""


class WireFormat(Protocol):
    """What callers of one dialect speak. Instances are stateless; a stream's state is in its reader or writer."""

    dialect: Dialect

    def parse(self, raw: bytes) -> ParsedRequest:
        """Raises InvalidRequest with a message for the caller."""

    def to_chat(self, request: ParsedRequest, *, upstream_model: str) -> ChatRequest:
        """For a provider of another dialect. Raises InvalidRequest for what cannot be translated."""

    def prompt_text(self, request: ParsedRequest) -> str:
        """All text of the prompt, tools included, for counting. Never raises."""

    def extent(self, request: ParsedRequest) -> Extent:
        """Upper bounds for limits. Never raises."""

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        """A translated whole reply. response.usage is never None."""

    def with_cost(self, body: bytes, cost: str) -> bytes:
        """A whole reply, ours or an upstream's, with `usage.cost` inserted by text; as it is without a usage object.

        cost: USD as a plain decimal number.
        """

    def stream_writer(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> StreamWriter: ...

    def render_error(self, error: GatewayError, *, request_id: str) -> Rendered: ...

    def render_stream_error(self, error: GatewayError, *, request_id: str) -> bytes:
        """The event that ends a stream in mid-way."""

    def limit_headers(self, limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
        """What the limits that bind a call leave, as SDKs of the dialect expect it."""


class PassThrough(WireFormat, Protocol):
    """A dialect that upstreams speak too: the caller's bytes go up and the upstream's come down."""

    path: str
    """Where an upstream of this dialect serves it, below its base URL."""

    def upstream_body(
        self,
        request: ParsedRequest,
        *,
        upstream_model: str,
        max_output_tokens: int | None = None,
        maximum_field: str = ...,
    ) -> bytes:
        """The pass-through body: as sent, but for the model's name, stream usage asked for, and a clamped maximum.

        max_output_tokens: lowers the caller's own maximum, or sets it where there is none, in `maximum_field`; never
        raises it.
        """

    def read_whole(self, body: bytes) -> Reading:
        """Raises UpstreamFailed when the body is no reply of this dialect."""

    def without_money(self, body: bytes) -> bytes:
        """A whole reply without what the upstream says of its own prices."""

    def whole_text(self, body: bytes) -> str:
        """The generated text of a whole reply, to be counted when it carries no usage."""

    def stream_reader(self, request: ParsedRequest) -> StreamReader: ...
