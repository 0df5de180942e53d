"""A reply of an upstream as bytes: our errors, and never our own key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Protocol

import httpx2

from llm.dialects.sse import EventSplitter, read_event, split_events
from llm.providers.failures import SHORTEST_SECRET, upstream_error
from llm.types import StreamEnd, StreamItem

_REDACTED = b"[redacted]"


class UpstreamReply:
    """The reply's headers have come; iterating reads the body once, and `aclose()` is due whatever happens."""

    def __init__(self, body: httpx2.AsyncByteStream, *, provider: str, secret: str) -> None:
        self._body = body
        self._provider = provider
        self._redactor = Redactor(secret)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        redactor = self._redactor
        try:
            async for data in self._body:
                yield redactor.feed(data)
        except Exception as error:
            raise upstream_error(error, provider=self._provider) from error
        if rest := redactor.finish():
            yield rest

    async def aclose(self) -> None:
        await self._body.aclose()


class Collector(Protocol):
    """Turns a dialect's events into stream items."""

    is_done: bool

    def feed(self, data: bytes) -> Iterable[StreamItem]: ...

    def end(self) -> StreamEnd: ...


async def read_all(reply: UpstreamReply) -> bytes:
    async with aclosing(reply):
        return b"".join([piece async for piece in reply])


async def read_items(reply: UpstreamReply, collector: Collector) -> AsyncIterator[StreamItem]:
    """The stream's items, and its end only if the dialect's own last event has come."""
    splitter = EventSplitter()
    async with aclosing(reply):
        async for piece in reply:
            for raw in split_events(splitter.feed(piece)):
                if data := read_event(raw).data:
                    for item in collector.feed(data):
                        yield item
    if collector.is_done:
        yield collector.end()


class Redactor:
    """Strikes one secret out of a byte stream, also where it is split between two pieces.

    Secrets shorter than SHORTEST_SECRET are words, and stay.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode() if len(secret) >= SHORTEST_SECRET else b""
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        if not self._secret:
            return data
        if self._held:
            data = self._held + data
        if self._secret in data:
            data = data.replace(self._secret, _REDACTED)
        split = self._begin_of_secret(data)
        self._held = data[split:]
        return data[:split] if self._held else data

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _begin_of_secret(self, data: bytes) -> int:
        """Where a secret begins whose end has not come yet; the length of data if there is none."""
        if data[-1:] not in self._secret:
            return len(data)
        first = self._secret[:1]
        position = data.find(first, max(0, len(data) - len(self._secret) + 1))
        while position >= 0:
            if self._secret.startswith(data[position:]):
                return position
            position = data.find(first, position + 1)
        return len(data)
