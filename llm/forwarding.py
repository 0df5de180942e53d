"""Pass-through: the caller speaks the upstream's own dialect, so bytes go through and only figures are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

from llm.dialects.base import PassThrough, Reading, StreamReader
from llm.dialects.usage_figures import merged_service
from llm.errors import UpstreamError, UpstreamFailed
from llm.exchange import Exchange
from llm.providers.base import ForwardsRaw, RawCall, RawReply
from llm.providers.failures import error_in_reply
from llm.providers.transport import json_of

_REST_SECONDS = 1.0


async def forward(exchange: Exchange) -> None:
    wire = cast("PassThrough", exchange.plan.wire)
    reply = await _send(exchange, wire)
    try:
        if exchange.plan.request.is_stream:
            await _forward_stream(exchange, wire, reply)
        else:
            await _forward_whole(exchange, wire, reply)
    finally:
        await reply.aclose()


async def _send(exchange: Exchange, wire: PassThrough) -> RawReply:
    plan = exchange.plan
    provider = cast("ForwardsRaw", plan.provider)
    body = wire.upstream_body(
        plan.request,
        upstream_model=plan.target.upstream_model,
        max_output_tokens=plan.max_output_tokens,
        maximum_field=provider.maximum_field,
    )
    return await provider.forward(
        RawCall(plan.request.dialect, wire.path, body, plan.request.is_stream, plan.forwarded_headers)
    )


async def _forward_whole(exchange: Exchange, wire: PassThrough, reply: RawReply) -> None:
    exchange.note_first_byte()
    pieces = []
    async for piece in reply:
        exchange.note_progress()
        pieces.append(piece)
    body = b"".join(pieces)
    exchange.reading = _as_served(exchange, _read_whole(exchange, wire, body))
    if exchange.reading.counts is None:
        exchange.text = wire.whole_text(body)
    await exchange.settle_complete()
    body = wire.without_money(body)
    if (cost := exchange.visible_cost()) is not None:
        body = wire.with_cost(body, cost)
    exchange.answer_whole(body)


async def _forward_stream(exchange: Exchange, wire: PassThrough, reply: RawReply) -> None:
    reader = wire.stream_reader(exchange.plan.request)
    pieces = aiter(reply)
    await _follow(exchange, pieces, reader)
    await exchange.settle_complete()
    await exchange.put(reader.finish(cost=exchange.visible_cost()))
    exchange.close_stream()
    await _read_rest(pieces)


async def _follow(exchange: Exchange, pieces: AsyncIterator[bytes], reader: StreamReader) -> None:
    """Hand the stream on up to its last event, which the reader holds back. Raises where it ends before that."""
    try:
        async for data in pieces:
            passed = reader.feed(data)
            if reader.failure is not None and b"data:" not in passed:
                break
            if reader.has_data and not exchange.is_streaming:
                exchange.start_stream()
            if passed:
                if b"data:" in passed:
                    # Comments keep a connection open; they don't keep a call alive.
                    exchange.note_progress()
                    exchange.note_events(passed.count(b"data:"))
                await exchange.put(passed)
            if reader.is_complete or reader.failure is not None:
                break
    finally:
        exchange.reading = _as_served(exchange, reader.reading())
        if exchange.reading.counts is None or not reader.is_complete:
            exchange.text = reader.output_text()
            exchange.unkept_characters = reader.dropped_characters
    if reader.failure is not None:
        raise _failure_of_stream(exchange, reader)
    if not reader.is_complete:
        raise exchange.failed("broke off before its answer was whole")


def _read_whole(exchange: Exchange, wire: PassThrough, body: bytes) -> Reading:
    """Raises UpstreamError: what an error inside a 200 means, or that this is no reply."""
    try:
        return wire.read_whole(body)
    except UpstreamFailed:
        failure = error_in_reply(json_of(body), provider=exchange.plan.target.provider)
        if failure is None:
            raise
        raise failure from None


def _failure_of_stream(exchange: Exchange, reader: StreamReader) -> UpstreamError:
    """An error that comes before all else is a refusal behind a 200; later ones break the answer off."""
    if not exchange.is_streaming and not exchange.text:
        failure = error_in_reply(reader.error, provider=exchange.plan.target.provider)
        if failure is not None:
            return failure
    return exchange.failed("reported an error in the middle of its answer")


def _as_served(exchange: Exchange, reading: Reading) -> Reading:
    """Where the upstream says nothing of a tier, a speed or a region that was asked for, that is what counts."""
    asked = exchange.plan.request.asked_service
    if not any(asked):
        return reading
    return replace(reading, service=merged_service(asked, reading.service))


async def _read_rest(pieces: AsyncIterator[bytes]) -> None:
    """What follows the last event is of no interest, but a reply that was read to its end gives its connection back."""
    try:
        async with asyncio.timeout(_REST_SECONDS):
            async for _ in pieces:
                pass
    except (TimeoutError, UpstreamError):
        return
