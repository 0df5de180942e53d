"""A provider's answer to a call, as events: `Connected`, `Head`, any of `Ping` and `Chunk`, and `Complete` at its end.

An answer is read in one direction, and its reader decides when to stop; nothing here knows about deadlines, the caller
or the books.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple, Protocol

from llm.types import Reading, TokenCounts


class Connected:
    """The provider has begun to answer, with status and headers; there is nothing for the caller yet."""


class Head:
    """Something for the caller has arrived: a stream's first event, or a whole reply's headers."""


class Ping:
    """The provider has made progress, without anything for the caller."""


class Chunk(NamedTuple):
    """Bytes for the caller, and how many of the provider's events they contain; 0 for a comment, say, which isn't
    progress.
    """

    data: bytes
    events: int


class Complete(NamedTuple):
    """The answer is complete. Without this event, it was cut.

    finish: returns the remaining bytes, given the counts on the books and the cost in USD, if the caller may see it.
    """

    finish: Callable[[TokenCounts, str | None], Awaitable[bytes]]


Event = Connected | Head | Ping | Chunk | Complete

CONNECTED = Connected()
HEAD = Head()
PING = Ping()


class Answer(Protocol):
    """One provider's answer to one call. Its properties describe what has been read so far."""

    @property
    def reading(self) -> Reading:
        """What the provider has reported about the call."""

    @property
    def text(self) -> str:
        """The generated text, as far as it is kept for counting."""

    @property
    def unkept_characters(self) -> int:
        """Generated characters beyond `text`."""

    @property
    def tool_meters(self) -> tuple[str, ...]:
        """Tools that the provider runs itself (see `ParsedRequest`)."""

    def events(self) -> AsyncGenerator[Event, None]:
        """Makes the call. Close the iterator; that also closes the provider's response, whatever happens.

        Raises UpstreamError, or anything that a custom provider raises.
        """
