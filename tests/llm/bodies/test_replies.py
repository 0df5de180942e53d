"""Whole replies while they are held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm.bodies import replies
from llm.bodies.replies import LARGE_REPLIES, held_reply

MEGABYTE = 1024**2


async def pieces(number: int, *, size: int = MEGABYTE // 2) -> AsyncIterator[bytes]:
    for _ in range(number):
        yield b"a" * size


class Reading:
    """A reply that is read, and then held until it is let go."""

    def __init__(self, number_of_pieces: int) -> None:
        self.size = 0
        self.progress = 0
        self._go = asyncio.Event()
        self._task = asyncio.create_task(self._read(number_of_pieces))

    async def _read(self, number_of_pieces: int) -> None:
        async with held_reply() as held:
            async for _ in held.collect(pieces(number_of_pieces)):
                self.progress += 1
            self.size = len(held.body)
            await self._go.wait()

    async def end(self) -> None:
        self._go.set()
        await self._task


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    done: list[Any] = []
    monkeypatch.setattr(replies, "trim_soon", lambda: done.append(1))
    return done


async def test_few_large_replies_are_held_at_a_time_and_small_ones_pass(trims: list[Any]) -> None:
    large = [Reading(4) for _ in range(LARGE_REPLIES + 2)]
    small = Reading(1)
    await asyncio.sleep(0.05)
    assert [each.size for each in large] == [2 * MEGABYTE] * LARGE_REPLIES + [0, 0]
    assert small.size == MEGABYTE // 2
    await large[0].end()
    await asyncio.sleep(0.05)
    assert [each.size for each in large[-2:]] == [2 * MEGABYTE, 0]
    # All but the small one are worth giving back.
    for each in (*large[1:], small):
        await each.end()
    assert len(trims) == len(large)


async def test_a_reply_whose_turn_never_comes_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "_PATIENCE_S", 0.05)
    large = [Reading(4) for _ in range(2 * LARGE_REPLIES)]
    await asyncio.sleep(0.5)
    assert {each.size for each in large} == {2 * MEGABYTE}
    # For each piece, and once for the wait.
    assert large[-1].progress == 5
    for each in large:
        await each.end()
    again = Reading(4)
    await asyncio.sleep(0.02)
    assert again.size == 2 * MEGABYTE
    await again.end()


async def test_who_leaves_while_waiting_takes_no_turn_along() -> None:
    large = [Reading(4) for _ in range(LARGE_REPLIES + 1)]
    await asyncio.sleep(0.05)
    large[-1]._task.cancel()
    await asyncio.gather(large[-1]._task, return_exceptions=True)
    for each in large[:-1]:
        await each.end()
    again = [Reading(4) for _ in range(LARGE_REPLIES)]
    await asyncio.sleep(0.05)
    assert {each.size for each in again} == {2 * MEGABYTE}
    for each in again:
        await each.end()
