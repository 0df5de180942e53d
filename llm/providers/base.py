"""What a provider must offer. A custom one is a file like `echo.py` and one line in `registry.py`."""

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
    """How a provider is reached. Timeouts in seconds; first byte, idle and total time are the gateway's own business.

    idle_timeout_s: how long a socket may be silent, whatever it was last asked for. dialects: of OpenAI's, those that
    its server speaks. developer_role: see `Server`. max_output_tokens: for requests without a maximum, where the
    provider wants one; 0: it is asked.
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
    """Three methods make a provider. It is built once a process, from its settings.

    Failures are raised as `llm.errors.UpstreamError`s; anything else is logged and becomes a 502 whose tokens are
    estimated, since the upstream may have done the work.
    """

    def __init__(self, settings: ProviderSettings) -> None: ...

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """One whole reply. Its `usage` is None when the upstream reported none."""

    def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        """Deltas of text, thinking and tool calls, and one StreamEnd at the end; a stream without it counts as cut.

        A generator is closed once nobody reads it any more, so what it holds it can give back in a `finally`.
        """

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        """Tokens of these messages as the model would count them, as well as we know. No I/O. Never negative."""


@dataclass(frozen=True, slots=True)
class RawCall:
    """A pass-through call: the caller's own bytes, in a dialect that the upstream speaks.

    headers: the caller's headers that go up as they are (lower-case names).
    """

    dialect: Dialect
    path: str
    body: bytes
    is_stream: bool
    headers: Mapping[str, str]


class RawReply(Protocol):
    """A 2xx reply whose headers have come and whose body has not been read yet."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class ForwardsRaw(Protocol):
    """The optional fourth method: bytes go through where the caller's dialect is the upstream's own."""

    dialects: frozenset[Dialect]
    maximum_field: str
    """See `Server`. Who knows more of it `KnowsServer`."""

    async def forward(self, call: RawCall) -> RawReply:
        """Raises UpstreamError for anything but a 2xx reply."""

    async def aclose(self) -> None:
        """Close connections; called at shutdown."""


@runtime_checkable
class KnowsServer(Protocol):
    """Of a provider whose servers differ."""

    def server_for(self, model: str) -> Server: ...

    def learn_no_stream_options(self, model: str) -> bool:
        """It refuses to be asked for the usage of a stream; whether that is news."""


@runtime_checkable
class KnowsOutputMaximum(Protocol):
    """Of a provider that can say how much each of its models may write. May ask its server; raises nothing."""

    async def find_output_maximum(self, model: str) -> int | None:
        """None where it isn't known."""

    async def find_default_maximum(self, model: str) -> int | None:
        """What a translated request without a maximum is sent with; None where that isn't known."""


@dataclass(frozen=True, slots=True)
class RawFetch:
    """A request about something that the provider keeps. path: below its base URL, with its query."""

    method: str
    path: str


@runtime_checkable
class FetchesKept(Protocol):
    """The optional fifth method: of a provider that keeps what it has made."""

    async def fetch(self, fetch: RawFetch) -> RawReply:
        """Raises UpstreamError for anything but a 2xx reply."""


class Closing(Generic[Item]):
    """`aclosing` for what a provider returns, which may be an iterator that has nothing to close.

    Left to the garbage collector, a generator would hold its connection for a while.
    """

    def __init__(self, items: AsyncIterator[Item]) -> None:
        self._items = items

    async def __aenter__(self) -> AsyncIterator[Item]:
        return self._items

    async def __aexit__(self, *_: object) -> None:
        if (aclose := getattr(self._items, "aclose", None)) is not None:
            await aclose()
