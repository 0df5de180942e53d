"""Whole replies of an upstream while they are held: a few large ones at a time, with their memory returned afterwards.

A reply larger than a megabyte waits for its turn while others are parsed and rewritten. It has been paid for, so its
wait is bounded and then it goes ahead anyway: nothing is lost, and its cost is what it reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from weakref import WeakKeyDictionary

from django.conf import settings

from llm.bodies.trimming import WORTH_TRIMMING_BYTES, trim_soon

LARGE_REPLIES = 4
"""At a time: at LLM_MAX_REPLY_BYTES each, they take as much memory as bodies may."""
_PATIENCE_S = 30.0
_PART_OF_PATIENCE = 0.1
"""Fraction of a translated reply's total time, which keeps running meanwhile."""
_TICK_S = 0.2

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class HeldReply:
    """Collects one reply."""

    def __init__(self) -> None:
        self.body = b""
        self.is_large = False
        self.has_turn = False

    async def read(self, pieces: AsyncIterator[bytes]) -> bytes:
        async with aclosing(self.collect(pieces)) as progress:
            async for _ in progress:
                pass
        return self.body

    async def collect(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[None, None]:
        """Yields whenever the upstream makes progress; `body` is complete at the end."""
        received: list[bytes] = []
        size = 0
        async for piece in pieces:
            yield
            received.append(piece)
            size += len(piece)
            if size >= WORTH_TRIMMING_BYTES and not self.is_large:
                self.is_large = True
                async with aclosing(self._take_turn()) as ticks:
                    async for _ in ticks:
                        yield
        self.body = b"".join(received)

    async def _take_turn(self) -> AsyncGenerator[None, None]:
        """Yields while it waits, so that the wait doesn't count as silence of the upstream. Bounded: then it reads on
        anyway.
        """
        turns = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(LARGE_REPLIES))
        patience_s = min(_PATIENCE_S, settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS * _PART_OF_PATIENCE)
        turn = asyncio.ensure_future(turns.acquire())
        try:
            for _ in range(max(1, round(patience_s / _TICK_S))):
                await asyncio.wait((turn,), timeout=_TICK_S)
                self.has_turn = turn.done()
                yield
                if self.has_turn:
                    break
        finally:
            if not self.has_turn and not turn.cancel():
                # The turn came at the very moment when the wait was cancelled.
                turns.release()


@asynccontextmanager
async def held_reply() -> AsyncIterator[HeldReply]:
    """Held while the reply is worked on."""
    held = HeldReply()
    try:
        yield held
    finally:
        if held.has_turn:
            _turns[asyncio.get_running_loop()].release()
        if held.is_large:
            trim_soon()
