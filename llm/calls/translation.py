"""A caller of one dialect and a provider of another, connected through `llm.types`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import cast

from llm.bodies.turns import take_turn
from llm.calls.answers import CONNECTED, HEAD, PING, Chunk, Complete, Event
from llm.calls.context import CallContext
from llm.dialects.base import StreamWriter, Translatable
from llm.dialects.field_names import rename_field
from llm.errors import UpstreamRejected
from llm.providers.base import Closing
from llm.types import (
    ChatRequest,
    ChatResponse,
    Heartbeat,
    Reading,
    Service,
    StreamEnd,
    ThinkingDelta,
    TokenCounts,
    ToolCallDelta,
)


@asynccontextmanager
async def naming_own_fields(context: CallContext) -> AsyncGenerator[None, None]:
    """A provider's refusal names the field as the caller has sent it."""
    try:
        yield
    except UpstreamRejected as refusal:
        wire = cast("Translatable", context.wire)
        rename_field(refusal, partial(wire.own_name, request=context.request))
        raise


class TranslatedAnswer:
    """See `Answer`."""

    unkept_characters = 0
    tool_meters: tuple[str, ...] = ()

    def __init__(self, context: CallContext, chat: ChatRequest) -> None:
        self.reading = Reading()
        self._context = context
        self._wire = cast("Translatable", context.wire)
        self._chat = chat
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def events(self) -> AsyncGenerator[Event, None]:
        return self._stream_events() if self._context.request.is_stream else self._whole_events()

    async def _whole_events(self) -> AsyncGenerator[Event, None]:
        await take_turn(len(self._context.request.raw))
        async with naming_own_fields(self._context):
            response = await self._context.provider.chat(self._chat)
        self.reading = _reading_of(response)
        self._texts += [thinking.text for thinking in response.thinking]
        self._texts.append(response.reply)
        self._texts += [call.name + call.arguments for call in response.tool_calls]
        yield HEAD
        yield Complete(partial(self._finish_whole, response))

    async def _stream_events(self) -> AsyncGenerator[Event, None]:
        context = self._context
        await take_turn(len(context.request.raw))
        writer = self._wire.stream_writer(
            context.request, model=context.opened.model, request_id=context.request_id, created=int(time.time())
        )
        has_begun = False
        async with naming_own_fields(context), Closing(context.provider.stream_chat(self._chat)) as items:
            async for item in items:
                if isinstance(item, Heartbeat):
                    if item is Heartbeat.HEAD:
                        yield CONNECTED
                    elif item is Heartbeat.EVENT:
                        yield PING
                    elif has_begun:
                        yield Chunk(self._wire.keepalive, 0)
                    continue
                if isinstance(item, Reading):
                    self.reading = item
                    yield PING
                    continue
                if not has_begun:
                    has_begun = True
                    yield HEAD
                    yield Chunk(writer.start(), 0)
                if isinstance(item, StreamEnd):
                    response = _response_of(item)
                    self.reading = _reading_of(response)
                    yield Complete(partial(self._finish_stream, writer, response))
                    return
                self._texts.append(_text_of(item))
                yield Chunk(writer.item(item), 1)

    async def _finish_whole(self, response: ChatResponse, counts: TokenCounts, cost: str | None) -> bytes:
        context = self._context
        body = self._wire.render_whole(
            self._as_booked(response, counts), context.request, request_id=context.request_id, created=int(time.time())
        )
        return body if cost is None else self._wire.with_cost(body, cost)

    async def _finish_stream(
        self, writer: StreamWriter, response: ChatResponse, counts: TokenCounts, cost: str | None
    ) -> bytes:
        return writer.finish(self._as_booked(response, counts), cost=cost)

    def _as_booked(self, response: ChatResponse, counts: TokenCounts) -> ChatResponse:
        """With the figures on the books, and the model name that the caller requested."""
        return replace(response, usage=counts, model=self._context.opened.model)


def _text_of(item: str | ThinkingDelta | ToolCallDelta) -> str:
    if isinstance(item, ThinkingDelta):
        return item.text
    return item if isinstance(item, str) else item.name + item.arguments


def _response_of(end: StreamEnd) -> ChatResponse:
    return ChatResponse(
        reply="",
        model=end.model,
        usage=end.usage,
        finish_reason=end.finish_reason,
        response_id=end.response_id,
        service_tier=end.service_tier,
        speed=end.speed,
        inference_geo=end.inference_geo,
        upstream_cost=end.upstream_cost,
    )


def _reading_of(response: ChatResponse) -> Reading:
    return Reading(
        counts=response.usage,
        model=response.model,
        response_id=response.response_id,
        service=Service(response.service_tier, response.speed, response.inference_geo),
        is_final=True,
        upstream_cost=response.upstream_cost,
    )
