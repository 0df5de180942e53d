"""The interface of every wire format. Dialects are pure: bytes and types in, bytes and types out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from llm.dialects.json_text import Place
from llm.enums import Dialect
from llm.errors import GatewayError
from llm.types import (
    STANDARD_SERVICE,
    ChatRequest,
    ChatResponse,
    LimitState,
    Reading,
    Service,
    StreamItem,
)


class KeptResponse(NamedTuple):
    """A stored response that a request continues. param: the field that names it."""

    param: str
    id: str


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A caller's request, validated as far as the gateway depends on it.

    body: the JSON object as sent. raw: its bytes. model: the public name asked for, "" for the default model.
    wants_stream_usage: the caller asked for the figures on the stream.
    max_output_tokens: the caller's own ceiling for one choice, thinking included, None when it gave none.
    takes_maximum: whether an upstream would take one, so that a limit can lower it.
    thinking_tokens: what it asked for to be thought beside the answer. choices: how many answers are written.
    routing_fields: those present by which an upstream could choose another model. asked_service: how it
    is to be served. tool_meters: extra meters of what the provider is to run, for a reply that reports no units of it.
    is_count: it asks how many tokens a prompt has. Nothing is generated, and no provider charges for it.
    members: where the values of the object's members stand in `raw`, if it is large; else {}.
    kept_responses: responses kept at a provider that the request names; only whoever made them may go on from them.
    forbids_storage: the provider must not store it, nor the reply.
    end_user: the name of who it is for, "" for nobody. tags: what its caller groups calls by. Both cleaned and bounded.
    """

    dialect: Dialect
    body: Mapping[str, Any]
    raw: bytes
    model: str
    is_stream: bool
    wants_stream_usage: bool = False
    max_output_tokens: int | None = None
    takes_maximum: bool = True
    thinking_tokens: int = 0
    choices: int = 1
    routing_fields: tuple[str, ...] = ()
    asked_service: Service = STANDARD_SERVICE
    tool_meters: tuple[str, ...] = ()
    is_count: bool = False
    members: Mapping[str, Place] = field(default_factory=dict)
    kept_responses: tuple[KeptResponse, ...] = ()
    forbids_storage: bool = False
    end_user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


class Extent(NamedTuple):
    """How much a request may make the upstream read, at most.

    input_tokens: None if it has parts (images, sound, files) whose size in tokens only the upstream knows.
    unbounded: something requested that costs beside tokens, and adds tokens, without a bound (a web search); "" for
    none.
    unbounded_output: something requested whose tokens have no bound (a predicted output); "" for none.
    """

    input_tokens: int | None
    unbounded: str = ""
    unbounded_output: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A complete HTTP response in a dialect."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


Origin = Mapping[str, str | int]
"""Of an error on a stream: `call_id`, `provider`, `attempts`, as far as known."""


class StreamReader(Protocol):
    """Follows a pass-through stream: takes bytes as they come, returns bytes that the caller may have.

    The stream's last event is held back: it comes from `finish()`, after settlement.
    """

    @property
    def has_data(self) -> bool:
        """Whether an event with data has arrived (comments don't count)."""

    @property
    def is_complete(self) -> bool:
        """Whether the dialect's own last event has arrived."""

    @property
    def failure(self) -> str | None:
        """The type of an error event in mid-stream, or None."""

    @property
    def error(self) -> Mapping[str, Any] | None:
        """That event as received. It may contain anything: only `llm.providers.failures` reads it."""

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished event."""

    def feed(self, data: bytes) -> bytes:
        """Take the upstream's bytes; return those for the caller now (may be empty).

        Raises UpstreamFailed if an unfinished event is larger than we hold.
        """

    def end(self) -> bytes:
        """The upstream has closed the stream; return the caller's part of an event that was left unfinished."""

    def finish(self, *, cost: str | None = None) -> bytes:
        """The held-back rest. cost: USD as a plain decimal number, put into the usage event if the caller gets one."""

    def reading(self) -> Reading:
        """What the upstream has reported so far."""

    def output_text(self) -> str:
        """The text generated so far (including tool arguments and reasoning), to be counted if no usage arrived."""

    @property
    def dropped_characters(self) -> int:
        """Generated characters beyond what `output_text` keeps (to bound memory); they count too."""


class StreamWriter(Protocol):
    """Renders a translated stream, event by event."""

    def start(self) -> bytes: ...

    def item(self, item: StreamItem) -> bytes:
        """Render one item; b"" if the dialect can't express it, and for the StreamEnd, which `finish` renders."""

    def finish(self, response: ChatResponse, *, cost: str | None = None) -> bytes:
        """The last events. response: the complete reply with its final figures (`usage` is never None)."""


class WireFormat(Protocol):
    """What callers of one dialect speak. Instances are stateless; a stream's state is in its reader or writer."""

    dialect: Dialect
    request_id_header: str
    """The header that names the request in the provider's own replies; ours have it beside `x-request-id`."""
    duration_header: str
    """The header for the duration in milliseconds; "" for none."""
    keepalive: bytes
    """Keeps a stream's connection open without meaning anything."""

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        """Raises InvalidRequest with a message for the caller.

        body: from `load_object`, if it was parsed elsewhere.
        """

    def prompt_text(self, request: ParsedRequest) -> str:
        """All text of the prompt, including tools, for counting. Never raises."""

    def extent(self, request: ParsedRequest) -> Extent:
        """Upper bounds for limits. Never raises."""

    def with_cost(self, body: bytes, cost: str) -> bytes:
        """A whole reply, ours or an upstream's, with `usage.cost` inserted as text; unchanged without a usage object.

        cost: USD as a plain decimal number.
        """

    def render_error(self, error: GatewayError, *, request_id: str) -> Rendered: ...

    def render_stream_error(self, error: GatewayError, *, request_id: str, origin: Origin) -> bytes:
        """The event that ends a stream with an error, including the status it would have had and its origin."""

    def limit_headers(self, limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
        """What the limits that apply to a call leave, in the form that SDKs of the dialect expect."""


@runtime_checkable
class Translatable(WireFormat, Protocol):
    """A dialect whose callers can also be served by providers of another one, through `llm.types`."""

    def to_chat(self, request: ParsedRequest, *, upstream_model: str) -> ChatRequest:
        """For a provider of another dialect. Raises InvalidRequest for anything that can't be translated."""

    def own_name(self, param: str, request: ParsedRequest) -> str:
        """The path in the caller's request of what is called `param` in chat completions; as it is if it has none."""

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        """A translated whole reply. response.usage is never None."""

    def stream_writer(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> StreamWriter: ...


class Server(NamedTuple):
    """How a server differs from others of its dialect.

    maximum_field: of a chat, the field for an output maximum that the caller hasn't set. takes_stream_options: whether
    it can be asked for the usage of a stream. developer_role: its name for the role of developer messages.
    stores_chats: it may store chat completions if nothing is said of it. wants_reasoning: it refuses tool calls in the
    history without the thinking that led to them (`reasoning_content`).
    """

    maximum_field: str = "max_completion_tokens"
    takes_stream_options: bool = True
    developer_role: str = "developer"
    stores_chats: bool = False
    wants_reasoning: bool = False


ANY_SERVER = Server()


class PassThrough(WireFormat, Protocol):
    """A dialect that upstreams speak too: the caller's bytes go up and the upstream's come down."""

    path: str
    """The path where an upstream of this dialect serves it, below its base URL."""
    name: str
    """Of what is served there, as a sentence names it: `embeddings (POST /v1/embeddings)`."""
    is_on_every_server: bool
    """Whether all servers of this dialect have it; else one may not know the path."""

    def upstream_body(
        self,
        request: ParsedRequest,
        *,
        upstream_model: str,
        max_output_tokens: int | None = None,
        server: Server = ANY_SERVER,
    ) -> bytes:
        """The body to pass through: as sent, except for the model's name, stream usage, and a lowered maximum.

        max_output_tokens: lowers the caller's own maximum, or sets one; never raises it.
        """

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        """Raises UpstreamFailed if the body isn't a reply of this dialect.

        reply: the parsed body, if it was parsed elsewhere.
        """

    def without_money(self, body: bytes) -> bytes:
        """A whole reply without the upstream's prices."""

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        """The generated text of a whole reply, to be counted if it reports no usage."""


class StreamedPassThrough(PassThrough, Protocol):
    def stream_reader(self, request: ParsedRequest) -> StreamReader: ...
