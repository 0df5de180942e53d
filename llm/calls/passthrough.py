"""Pass-through: the caller speaks the upstream's own dialect, so bytes go through and only figures are read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

from llm.bodies.process import ReadReply, read_reply
from llm.bodies.replies import held_reply
from llm.bodies.trimming import trimmed_after
from llm.bodies.turns import take_turn, take_turn_for_event
from llm.calls.answers import CONNECTED, HEAD, PING, Chunk, Complete, Event
from llm.calls.context import CallContext
from llm.dialects.base import PassThrough, Server, StreamedPassThrough, StreamReader
from llm.dialects.json_text import replaced
from llm.dialects.openai_chat.fields import is_search_model
from llm.dialects.usage_figures import WEB_SEARCHES, merged_service
from llm.errors import UpstreamError, UpstreamFailed, UpstreamRejected
from llm.providers.base import Closing, ForwardsRaw, KnowsServer, RawCall, RawReply
from llm.providers.failures import before_sending, error_in_reply
from llm.providers.registry import find_instance, upstream_key
from llm.types import Reading, TokenCounts

_UNKNOWN_PATH = (404, 405, 501)
_CODES_OF_PATHS = (UpstreamFailed.code, UpstreamRejected.code, "unknown_url", "not_found", "not_found_error")


class PassedThroughAnswer:
    """See `Answer`."""

    def __init__(self, context: CallContext) -> None:
        self.reading = Reading()
        self.text = ""
        self.unkept_characters = 0
        self.tool_meters = _tool_meters(context)
        self._context = context
        self._wire = cast("PassThrough", context.wire)

    def events(self) -> AsyncGenerator[Event, None]:
        return self._stream_events() if self._context.request.is_stream else self._whole_events()

    async def _whole_events(self) -> AsyncGenerator[Event, None]:
        reply = await self._send()
        async with aclosing(reply), held_reply() as held:
            yield HEAD
            async with Closing(aiter(reply)) as pieces, aclosing(held.collect(pieces)) as progress:
                async for _ in progress:
                    yield PING
            read = await read_reply(held.body)
            self.reading = self._as_served(self._read_whole(held.body, read.value))
            if self.reading.counts is None:
                self.text = self._wire.whole_text(held.body, read.value)
            yield Complete(partial(self._finish_whole, held.body, read))

    async def _stream_events(self) -> AsyncGenerator[Event, None]:
        """All events up to the last, which the reader holds back."""
        reply = await self._send()
        reader = cast("StreamedPassThrough", self._wire).stream_reader(self._context.request)
        has_begun = False
        async with aclosing(reply), Closing(aiter(reply)) as pieces:
            yield CONNECTED
            with self._noting(reader) as note_size:
                async for data in pieces:
                    note_size(reader.held_bytes)
                    await take_turn_for_event(reader.held_bytes, data)
                    passed = reader.feed(data)
                    events = passed.count(b"data:")
                    if reader.failure is not None and not events:
                        break
                    if reader.has_data and not has_begun:
                        has_begun = True
                        yield HEAD
                    if passed:
                        # Comments keep a connection open; they don't count as progress.
                        yield Chunk(passed, events)
                    if reader.is_complete or reader.failure is not None:
                        break
                else:
                    rest = reader.end()
                    if reader.has_data and not has_begun:
                        has_begun = True
                        yield HEAD
                    if rest:
                        yield Chunk(rest, rest.count(b"data:"))
            if reader.failure is not None or not reader.is_complete:
                raise self._failure_of_stream(reader, has_begun=has_begun)
            yield Complete(partial(_finish_stream, reader))
            await _read_rest(pieces)

    async def _send(self) -> RawReply:
        context = self._context
        provider = cast("ForwardsRaw", context.provider)
        await take_turn(len(context.request.raw))
        with before_sending(context.target.provider):
            body = self._wire.upstream_body(
                context.request,
                upstream_model=context.target.upstream_model,
                max_output_tokens=context.max_output_tokens,
                server=_server(provider, context.target.upstream_model),
            )
        call = RawCall(
            context.request.dialect, self._wire.path, body, context.request.is_stream, context.forwarded_headers
        )
        try:
            return await provider.forward(call)
        except UpstreamError as error:
            if (unserved := self._unserved(error)) is None:
                raise
            raise unserved from error

    def _unserved(self, error: UpstreamError) -> UpstreamError | None:
        """In our words where the server doesn't know the path: its own would be about an address that is ours."""
        target = self._context.target
        is_about_path = error.upstream_status in _UNKNOWN_PATH and error.code in _CODES_OF_PATHS and error.param is None
        if self._wire.is_on_every_server or not is_about_path or target.upstream_model in error.message:
            return None
        unserved = UpstreamRejected(
            f"The provider “{target.provider}” of this model does not serve {self._wire.name}. Choose another model.",
            param="model",
            http_status=400,
        )
        unserved.upstream_status = error.upstream_status
        return unserved

    def _read_whole(self, body: bytes, value: Any) -> Reading:
        """Raises UpstreamError for an error inside a 200, or for something that isn't a reply."""
        try:
            return self._wire.read_whole(body, value)
        except UpstreamFailed:
            failure = self._error_in(value)
            if failure is None:
                raise
            raise failure from None

    async def _finish_whole(self, body: bytes, read: ReadReply, _: TokenCounts, cost: str | None) -> bytes:
        return await reply_bytes(self._wire, body, read, cost=cost)

    @contextmanager
    def _noting(self, reader: StreamReader) -> Iterator[Callable[[int], None]]:
        """Records what was read, however the reading ends."""
        with trimmed_after() as note_size:
            try:
                yield note_size
            finally:
                self.reading = self._as_served(reader.reading())
                if self.reading.counts is None or not self.reading.is_final:
                    self.text = reader.output_text()
                    self.unkept_characters = reader.dropped_characters

    def _failure_of_stream(self, reader: StreamReader, *, has_begun: bool) -> UpstreamError:
        """An error as the first event is a refusal behind a 200; a later one cuts the answer."""
        refusal = None if has_begun or self.text else self._error_in(reader.error)
        reported = "reported an error in the middle of its answer"
        what = "ended its answer before it was complete" if reader.failure is None else reported
        return refusal or UpstreamFailed(
            f"The provider “{self._context.target.provider}” {what}.", may_have_worked=True
        )

    def _error_in(self, document: object) -> UpstreamError | None:
        target = self._context.target
        instance = find_instance(target.instance)
        provider = target.provider if instance is None else instance.provider
        return error_in_reply(document, provider=provider, secret=upstream_key(target.instance, target.credential))

    def _as_served(self, reading: Reading) -> Reading:
        """If the upstream doesn't report the tier, speed or region, the requested one counts."""
        asked = self._context.request.asked_service
        if not any(asked):
            return reading
        return replace(reading, service=merged_service(asked, reading.service))


async def reply_bytes(wire: PassThrough, body: bytes, read: ReadReply, *, cost: str | None = None) -> bytes:
    """A whole reply without the upstream's prices; with ours, unless `cost` is None."""
    await take_turn(len(body))
    if not read.is_apart:
        body = wire.without_money(body)
        return body if cost is None else wire.with_cost(body, cost)
    body = replaced(body, dict.fromkeys(read.money_places, b""))
    return body if cost is None or read.cost_place is None else replaced(body, {read.cost_place: cost.encode()})


def _server(provider: ForwardsRaw, model: str) -> Server:
    return provider.server_for(model) if isinstance(provider, KnowsServer) else Server(provider.maximum_field)


def _tool_meters(context: CallContext) -> tuple[str, ...]:
    """Tools that the provider will run; some of OpenAI's models search in each call."""
    meters = context.request.tool_meters
    if WEB_SEARCHES not in meters and is_search_model(context.target.upstream_model):
        return (WEB_SEARCHES, *meters)
    return meters


async def _finish_stream(reader: StreamReader, _: TokenCounts, cost: str | None) -> bytes:
    return reader.finish(cost=cost)


async def _read_rest(pieces: AsyncIterator[bytes]) -> None:
    """Whatever follows the last event is ignored, but reading to the end returns the connection to the pool."""
    with suppress(UpstreamError):
        async for _ in pieces:
            pass
