"""What a provider answers to a call, as events: `Connected`, `Head`, any of `Ping` and `Chunk`, `Complete` at its end.

An answer is read in one direction. Whoever reads it decides when it ends; nothing here knows of deadlines, of the
caller or of the books.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple, Protocol

from llm.types import Reading, TokenCounts


class Connected:
    """The provider has begun to answer, with its status and headers, and there is nothing yet for the caller."""


class Head:
    """Something for the caller has come: of a stream its first event, of a whole reply its head."""


class Ping:
    """The provider has made progress, and there is nothing for the caller in it."""


class Chunk(NamedTuple):
    """Bytes for the caller, and how many events of the provider they hold; 0: a comment, say, which is no progress."""

    data: bytes
    events: int


class Complete(NamedTuple):
    """The answer has come to its own end. Without this event it was cut.

    finish: the bytes that are left to be told, by the counts that are on the books and the cost in USD, where the
    caller may see it.
    """

    finish: Callable[[TokenCounts, str | None], Awaitable[bytes]]


Event = Connected | Head | Ping | Chunk | Complete

CONNECTED = Connected()
HEAD = Head()
PING = Ping()


class Answer(Protocol):
    """One provider's answer to one call. What has been read of it so far can be asked for at any time."""

    @property
    def reading(self) -> Reading:
        """What the provider has said of the call."""

    @property
    def text(self) -> str:
        """What was generated, as far as it has to be counted."""

    @property
    def unkept_characters(self) -> int:
        """Of what was generated, beyond `text`."""

    @property
    def tool_meters(self) -> tuple[str, ...]:
        """Of what the provider was sent to run by itself (see `ParsedRequest`)."""

    def events(self) -> AsyncGenerator[Event, None]:
        """Makes the call. To be closed; whatever happens then, the provider's response is closed too.

        Raises UpstreamError, or whatever a custom provider raises.
        """
