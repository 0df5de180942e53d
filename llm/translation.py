"""A caller of one dialect in front of a provider that speaks another, through `llm.types`."""

from __future__ import annotations

import time
from dataclasses import replace

from llm.dialects.base import Reading, StreamWriter
from llm.exchange import Exchange
from llm.types import ChatRequest, ChatResponse, Service, StreamEnd


async def translate(exchange: Exchange, chat: ChatRequest) -> None:
    if exchange.plan.request.is_stream:
        await _translate_stream(exchange, chat)
    else:
        await _translate_whole(exchange, chat)


async def _translate_whole(exchange: Exchange, chat: ChatRequest) -> None:
    plan = exchange.plan
    response = await plan.provider.chat(chat)
    exchange.note_first_byte()
    exchange.reading = _reading_of(response)
    exchange.text = _text_of(response)
    final = await _settle(exchange, response)
    body = plan.wire.render_whole(final, plan.request, request_id=plan.request_id, created=int(time.time()))
    if (cost := exchange.visible_cost()) is not None:
        body = plan.wire.with_cost(body, cost)
    exchange.answer_whole(body)


async def _translate_stream(exchange: Exchange, chat: ChatRequest) -> None:
    plan = exchange.plan
    writer = plan.wire.stream_writer(
        plan.request, model=plan.opened.model, request_id=plan.request_id, created=int(time.time())
    )
    end = await _follow(exchange, chat, writer)
    response = ChatResponse(
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
    exchange.reading = _reading_of(response)
    final = await _settle(exchange, response)
    await exchange.put(writer.finish(final, cost=exchange.visible_cost()))
    exchange.close_stream()


async def _follow(exchange: Exchange, chat: ChatRequest, writer: StreamWriter) -> StreamEnd:
    """Hand on all but the end, which is returned. Raises where the stream breaks off."""
    text: list[str] = []
    try:
        async for item in exchange.plan.provider.stream_chat(chat):
            if not exchange.is_streaming:
                exchange.start_stream()
                await exchange.put(writer.start())
            if isinstance(item, StreamEnd):
                return item
            exchange.note_progress()
            exchange.note_events(1)
            text.append(item if isinstance(item, str) else item.name + item.arguments)
            await exchange.put(writer.item(item))
    finally:
        exchange.text = "".join(text)
    raise exchange.failed("broke off before its answer was whole")


async def _settle(exchange: Exchange, response: ChatResponse) -> ChatResponse:
    """The response with the figures that are on the books, in the name that the caller asked for."""
    closing = await exchange.settle_complete()
    return replace(response, usage=closing.counts, model=exchange.plan.opened.model)


def _reading_of(response: ChatResponse) -> Reading:
    return Reading(
        counts=response.usage,
        model=response.model,
        response_id=response.response_id,
        service=Service(response.service_tier, response.speed, response.inference_geo),
        is_final=True,
        upstream_cost=response.upstream_cost,
    )


def _text_of(response: ChatResponse) -> str:
    return response.reply + "".join(call.name + call.arguments for call in response.tool_calls)
