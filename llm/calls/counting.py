"""Our own estimate of a prompt's tokens, for providers that can't be asked in the caller's dialect."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import cast

from llm.bodies.turns import take_turn
from llm.calls.answers import HEAD, Complete, Event
from llm.calls.context import CallContext
from llm.calls.estimation import estimate_chat
from llm.dialects.base import Translatable
from llm.types import ChatRequest, ChatResponse, Reading, TokenCounts


class CountedAnswer:
    """See `Answer`. Nothing is sent, and nothing is charged."""

    text = ""
    unkept_characters = 0
    tool_meters: tuple[str, ...] = ()

    def __init__(self, context: CallContext, chat: ChatRequest) -> None:
        self.reading = Reading(counts=TokenCounts(), is_final=True)
        self._context = context
        self._chat = chat

    async def events(self) -> AsyncGenerator[Event, None]:
        await take_turn(len(self._context.request.raw))
        yield HEAD
        yield Complete(self._finish)

    async def _finish(self, _: TokenCounts, cost: str | None) -> bytes:
        context = self._context
        model = context.opened.model
        tokens = estimate_chat(context.provider, self._chat, model=model)
        response = ChatResponse(reply="", model=model, usage=TokenCounts(prompt_tokens=tokens))
        wire = cast("Translatable", context.wire)
        return wire.render_whole(response, context.request, request_id=context.request_id, created=0)
