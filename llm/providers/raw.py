"""A reply of an upstream as bytes: our errors, and never our own key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Protocol

import httpx2

from llm.dialects.sse import EventSplitter, read_event, split_events
from llm.providers.failures import error_in_reply, upstream_error
from llm.providers.redaction import forms_of
from llm.providers.transport import json_of
from llm.types import StreamEnd, StreamItem


class UpstreamReply:
    """The reply's headers have come; iterating reads the body once, and `aclose()` is due whatever happens."""

    def __init__(self, body: httpx2.AsyncByteStream, *, provider: str, secret: str) -> None:
        self._body = body
        self.provider = provider
        self._redactor = Redactor(secret)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        redactor = self._redactor
        try:
            async for data in self._body:
                yield redactor.feed(data)
        except Exception as error:
            raise upstream_error(error, provider=self.provider) from error
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
        body = b"".join([piece async for piece in reply])
    _refuse_error(body, reply)
    return body


async def read_items(reply: UpstreamReply, collector: Collector) -> AsyncIterator[StreamItem]:
    """The stream's items, and its end only if the dialect's own last event has come."""
    splitter = EventSplitter()
    has_data = False
    async with aclosing(reply):
        async for piece in reply:
            for raw in split_events(splitter.feed(piece)):
                if data := read_event(raw).data:
                    if not has_data:
                        _refuse_error(data, reply)
                    has_data = True
                    for item in collector.feed(data):
                        yield item
    if collector.is_done:
        yield collector.end()


def _refuse_error(body: bytes, reply: UpstreamReply) -> None:
    """Raises UpstreamError for an error that came with status 200 and before any answer."""
    if b'"error"' in body and (failure := error_in_reply(json_of(body), provider=reply.provider)) is not None:
        raise failure


class Redactor:
    """Strikes one secret, in all its forms, out of a byte stream, also where it is split between two pieces.

    Secrets shorter than SHORTEST_SECRET are words, and stay.
    """

    def __init__(self, secret: str) -> None:
        self._forms = forms_of(secret)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        forms = self._forms
        if not forms.forms:
            return data
        if self._held:
            data = self._held + data
        data = forms.strike_out(data)
        split = forms.begin_of_unfinished(data)
        self._held = data[split:]
        return data[:split] if self._held else data

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held
