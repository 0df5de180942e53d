"""The interface of a provider. To add one, write a file like `echo.py` and add a line to `registry.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from llm.dialects.base import Server
from llm.enums import Dialect
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamItem

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """How to reach a provider. Timeouts in seconds; first byte, idle and total time are handled by the gateway.

    idle_timeout_s: how long a socket may be silent. dialects: those of OpenAI's that its server speaks. developer_role:
    see `Server`. max_output_tokens: for requests without a maximum, if the provider requires one; 0: ask the provider.
    """

    name: str
    api_key: str = ""
    base_url: str = ""
    dialects: frozenset[Dialect] = frozenset((Dialect.OPENAI_CHAT,))
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 120.0
    developer_role: str = "developer"
    max_output_tokens: int = 0
    max_reply_bytes: int = 64 * 1024 * 1024
    max_connections: int = 4096


@runtime_checkable
class BaseLLMProvider(Protocol):
    """Three methods make a provider. It is built once per process, from its settings.

    Failures are raised as `llm.errors.UpstreamError`s; anything else is logged and becomes a 502 with estimated tokens,
    since the upstream may have done the work.
    """

    def __init__(self, settings: ProviderSettings) -> None: ...

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """One whole reply. Its `usage` is None if the upstream reported none."""

    def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        """Deltas of text, thinking and tool calls, and one StreamEnd at the end; without it, the stream counts as cut.

        A generator is closed when it is no longer read, so it can release its resources in a `finally`.
        """

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        """Tokens of these messages as the model would count them, as well as we know. No I/O. Never negative."""


@dataclass(frozen=True, slots=True)
class RawCall:
    """A pass-through call: the caller's own bytes, in a dialect that the upstream speaks.

    headers: the caller's headers that are sent unchanged (lower-case names).
    """

    dialect: Dialect
    path: str
    body: bytes
    is_stream: bool
    headers: Mapping[str, str]


class RawReply(Protocol):
    """A 2xx reply whose headers have arrived and whose body hasn't been read yet."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class ForwardsRaw(Protocol):
    """The optional fourth method: bytes pass through if the caller's dialect is the upstream's own."""

    dialects: frozenset[Dialect]
    maximum_field: str
    """See `Server`. `KnowsServer` distinguishes further."""

    async def forward(self, call: RawCall) -> RawReply:
        """Raises UpstreamError for anything but a 2xx reply."""

    async def aclose(self) -> None:
        """Close connections; called at shutdown."""


@runtime_checkable
class KnowsServer(Protocol):
    """For a provider whose servers differ."""

    def server_for(self, model: str) -> Server: ...

    def learn_no_stream_options(self, model: str) -> bool:
        """This server refuses to be asked for the usage of a stream; returns whether that is new."""


@runtime_checkable
class KnowsOutputMaximum(Protocol):
    """Of a provider that can say how much each of its models may write. May ask its server; raises nothing."""

    async def find_output_maximum(self, model: str) -> int | None:
        """None where it isn't known."""

    async def find_default_maximum(self, model: str) -> int | None:
        """What a translated request without a maximum is sent with; None where that isn't known."""


@dataclass(frozen=True, slots=True)
class RawFetch:
    """A request about something stored by the provider. path: below its base URL, with its query."""

    method: str
    path: str


@runtime_checkable
class FetchesKept(Protocol):
    """The optional fifth method: for a provider that stores what it has created."""

    async def fetch(self, fetch: RawFetch) -> RawReply:
        """Raises UpstreamError for anything but a 2xx reply."""


@runtime_checkable
class CountsPrompts(Protocol):
    """The optional sixth method: for a provider that counts the tokens of a prompt, free of charge."""

    async def count_prompt(self, request: ChatRequest) -> int | None:
        """None if its server can't. Raises UpstreamError."""


@runtime_checkable
class ChecksRequests(Protocol):
    """The optional seventh method: for a provider that knows, without asking, what it has no equivalent for."""

    def check_request(self, request: ChatRequest) -> None:
        """Raises UpstreamRejected. No I/O. Such a request isn't a call: it is neither recorded nor sent."""


class Closing(Generic[Item]):
    """Like `aclosing`, for a provider's return value, which may be an iterator that can't be closed.

    Left to the garbage collector, a generator would hold its connection for a while.
    """

    def __init__(self, items: AsyncIterator[Item]) -> None:
        self._items = items

    async def __aenter__(self) -> AsyncIterator[Item]:
        return self._items

    async def __aexit__(self, *_: object) -> None:
        if (aclose := getattr(self._items, "aclose", None)) is not None:
            await aclose()
