"""The number of a prompt's tokens, for callers of another dialect than the provider's.

The provider counts, if it can; otherwise it is our own estimate.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import cast

from llm.bodies.turns import take_turn
from llm.calls.answers import HEAD, Complete, Event
from llm.calls.context import CallContext
from llm.calls.estimation import estimate_chat
from llm.calls.translation import naming_own_fields
from llm.dialects.base import Translatable
from llm.providers.base import CountsPrompts
from llm.types import ChatRequest, ChatResponse, Reading, TokenCounts


class CountedAnswer:
    """See `Answer`. Nothing is generated, and nothing is charged."""

    text = ""
    unkept_characters = 0
    tool_meters: tuple[str, ...] = ()

    def __init__(self, context: CallContext, chat: ChatRequest) -> None:
        self.reading = Reading(counts=TokenCounts(), is_final=True)
        self._context = context
        self._chat = chat

    async def events(self) -> AsyncGenerator[Event, None]:
        await take_turn(len(self._context.request.raw))
        async with naming_own_fields(self._context):
            tokens = await self._count()
        yield HEAD
        yield Complete(partial(self._finish, tokens))

    async def _count(self) -> int:
        provider = self._context.provider
        counted = await provider.count_prompt(self._chat) if isinstance(provider, CountsPrompts) else None
        return estimate_chat(provider, self._chat, model=self._context.opened.model) if counted is None else counted

    async def _finish(self, tokens: int, _: TokenCounts, cost: str | None) -> bytes:
        context = self._context
        response = ChatResponse(reply="", model=context.opened.model, usage=TokenCounts(prompt_tokens=tokens))
        wire = cast("Translatable", context.wire)
        return wire.render_whole(response, context.request, request_id=context.request_id, created=0)
