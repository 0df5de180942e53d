"""An upstream's reply as bytes, with our own errors, and never containing our key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import httpx2

from llm.bodies.process import read_reply
from llm.bodies.replies import held_reply
from llm.bodies.trimming import trimmed_after
from llm.bodies.turns import take_turn_for_event
from llm.dialects.sse import EventSplitter, read_event, split_events
from llm.errors import UpstreamError
from llm.providers.base import Closing
from llm.providers.failures import error_in_reply, reading_in, upstream_error
from llm.providers.redaction import forms_of
from llm.providers.transport import UpstreamTransport, parse_json
from llm.types import Heartbeat, StreamEnd, StreamItem


class UpstreamReply:
    """The reply's headers have arrived; iterate over the body once, and always call `aclose()`."""

    def __init__(self, body: httpx2.AsyncByteStream, *, provider: str, secret: str) -> None:
        self._body = body
        self.provider = provider
        self.secret = secret
        self._redactor = StreamRedactor(secret)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        redactor = self._redactor
        try:
            async with Closing(aiter(self._body)) as pieces:
                async for data in pieces:
                    yield redactor.feed(data)
        except Exception as error:
            raise upstream_error(error, provider=self.provider) from error
        if rest := redactor.finish():
            yield rest

    async def aclose(self) -> None:
        await self._body.aclose()


async def forward(
    transport: UpstreamTransport,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    provider: str,
    secret: str,
    method: str = "POST",
) -> UpstreamReply:
    """Uses an SDK's connections without the SDK, which takes longer to build a request than everything else together.

    Raises UpstreamError.
    """
    content_type = {"content-type": "application/json"} if body else {}
    try:
        answer = await transport.exchange(method, url, headers={**content_type, **headers}, body=body)
    except Exception as error:
        raise upstream_error(error, provider=provider, secret=secret) from error
    return UpstreamReply(answer.body, provider=provider, secret=secret)


class Collector(Protocol):
    """Converts a dialect's events to stream items."""

    is_done: bool

    def feed(self, data: bytes) -> Sequence[StreamItem]: ...

    def end(self) -> StreamEnd: ...


async def read_all(reply: UpstreamReply) -> tuple[bytes, Any]:
    """A whole reply, and the parsed body (see `ReadReply`)."""
    async with held_reply() as held:
        async with aclosing(reply):
            body = await held.read(aiter(reply))
        value = (await read_reply(body)).value
    _refuse_error(body, reply, value)
    return body, value


async def read_items(reply: UpstreamReply, collector: Collector) -> AsyncGenerator[StreamItem, None]:
    """The stream's items, with the StreamEnd only if the dialect's own last event has arrived."""
    splitter = EventSplitter()
    has_data = False
    yield Heartbeat.HEAD
    with trimmed_after() as note_size:
        async with aclosing(reply), aclosing(aiter(reply)) as pieces:
            async for piece in pieces:
                note_size(splitter.held_bytes)
                await take_turn_for_event(splitter.held_bytes, piece)
                for raw in split_events(splitter.feed(piece)):
                    if data := read_event(raw).data:
                        if not has_data:
                            _refuse_error(data, reply)
                        has_data = True
                        for item in _fed(collector, data) or (Heartbeat.EVENT,):
                            yield item
                        continue
                    if not has_data:
                        _refuse_error(raw, reply)
                    yield Heartbeat.PING
    if not has_data:
        pending = splitter.pending
        _refuse_error(read_event(pending).data or pending, reply)
    if collector.is_done:
        yield collector.end()


def _refuse_error(body: bytes, reply: UpstreamReply, value: Any = None) -> None:
    """Raises UpstreamError for an error that came with status 200 and before any answer.

    value: the parsed body, if it was parsed elsewhere.
    """
    may_be_answer = b'"choices"' in body or b'"content"' in body
    if may_be_answer and b'"error"' not in body:
        return
    document = parse_json(body) if value is None else value
    if (failure := error_in_reply(document, provider=reply.provider, secret=reply.secret)) is not None:
        raise failure


def _fed(collector: Collector, data: bytes) -> Sequence[StreamItem]:
    try:
        return collector.feed(data)
    except UpstreamError as error:
        error.reading = reading_in(parse_json(data))
        raise


class StreamRedactor:
    """Removes one secret, in all its forms, from a byte stream, even if it is split between two chunks.

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
