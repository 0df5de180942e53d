"""The relay: in order, complete, bounded, and never a reason for a call to wait for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.calls.relay import Audience, Relay, Reply

FOREVER = 60.0


class Leaving:
    """Counts how often it was called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def a_relay(*, most_bytes: int = 10, stall_s: float = FOREVER, on_leave: Leaving | None = None) -> Relay:
    return Relay(most_bytes=most_bytes, stall_s=stall_s, on_leave=on_leave or Leaving())


def reading(relay: Relay) -> AsyncGenerator[bytes, None]:
    return aiter(relay)


async def read_all(relay: Relay) -> list[bytes]:
    return [piece async for piece in relay]


async def settled() -> None:
    """Every task that can go on has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)


@given(
    pieces=st.lists(st.binary(max_size=20), max_size=20),
    most_bytes=st.integers(0, 30),
    rests=st.lists(st.booleans(), max_size=20),
)
def test_a_listening_reader_gets_every_byte_in_order(pieces: list[bytes], most_bytes: int, rests: list[bool]) -> None:
    async def write(relay: Relay) -> None:
        for number, piece in enumerate(pieces):
            await relay.put(piece)
            if number < len(rests) and rests[number]:
                await asyncio.sleep(0)
        relay.close()

    async def run() -> list[bytes]:
        relay = a_relay(most_bytes=most_bytes, on_leave=leaving)
        read, _ = await asyncio.gather(read_all(relay), write(relay))
        return read

    leaving = Leaving()
    received = asyncio.run(run())
    assert b"".join(received) == b"".join(pieces)
    assert all(received)
    assert leaving.count == 0


async def test_what_has_gathered_goes_out_in_one_piece() -> None:
    relay = a_relay(most_bytes=100)
    for piece in (b"a", b"", b"bc", b"d"):
        await relay.put(piece)
    relay.close()
    assert await read_all(relay) == [b"abcd"]


async def test_a_reader_who_keeps_up_gets_each_piece_as_it_comes() -> None:
    relay = a_relay(most_bytes=100)
    pieces = reading(relay)
    for piece in (b"a", b"bc"):
        await relay.put(piece)
        assert await anext(pieces) == piece
    relay.close()
    assert [piece async for piece in pieces] == []


async def test_a_reader_waits_for_what_is_still_to_come() -> None:
    relay = a_relay()
    reader = asyncio.create_task(read_all(relay))
    await settled()
    assert not reader.done()
    await relay.put(b"late")
    relay.close()
    assert await reader == [b"late"]


async def test_as_much_as_the_relay_holds_is_taken_without_waiting() -> None:
    relay = a_relay(most_bytes=10)
    async with asyncio.timeout(1):
        await relay.put(b"x" * 10)


async def test_a_full_relay_waits_until_there_is_room() -> None:
    leaving = Leaving()
    relay = a_relay(most_bytes=10, on_leave=leaving)
    putting = asyncio.create_task(relay.put(b"x" * 11))
    await settled()
    assert not putting.done()
    pieces = reading(relay)
    assert await anext(pieces) == b"x" * 11
    await putting
    assert leaving.count == 0


async def test_a_relay_that_stays_full_counts_as_left() -> None:
    leaving = Leaving()
    relay = a_relay(most_bytes=10, stall_s=0.02, on_leave=leaving)
    started = time.monotonic()
    await relay.put(b"x" * 11)
    assert time.monotonic() - started >= 0.015
    assert leaving.count == 1
    async with asyncio.timeout(1):
        await relay.put(b"y" * 100)
    relay.close()
    assert await read_all(relay) == []


async def test_a_reader_who_takes_something_in_time_has_not_stalled() -> None:
    leaving = Leaving()
    relay = a_relay(most_bytes=1, stall_s=0.25, on_leave=leaving)
    pieces = reading(relay)
    for _ in range(4):
        putting = asyncio.create_task(relay.put(b"xx"))
        await asyncio.sleep(0.08)
        assert await anext(pieces) == b"xx"
        await putting
    assert leaving.count == 0


async def test_leaving_lets_go_of_who_waits_for_room() -> None:
    leaving = Leaving()
    relay = a_relay(most_bytes=1, on_leave=leaving)
    putting = asyncio.create_task(relay.put(b"xx"))
    await settled()
    relay.leave()
    async with asyncio.timeout(1):
        await putting
    assert leaving.count == 1


async def test_leaving_ends_a_reader_who_waits() -> None:
    relay = a_relay()
    reader = asyncio.create_task(read_all(relay))
    await settled()
    relay.leave()
    async with asyncio.timeout(1):
        assert await reader == []


async def test_nothing_is_kept_for_who_has_left() -> None:
    relay = a_relay(most_bytes=1000)
    await relay.put(b"unread")
    relay.leave()
    await relay.put(b"too late")
    assert relay._pieces == []
    assert relay._size == 0


async def test_leaving_is_told_once() -> None:
    leaving = Leaving()
    relay = a_relay(on_leave=leaving)
    relay.leave()
    relay.leave()
    assert leaving.count == 1


async def test_a_reader_who_stops_in_the_middle_has_left() -> None:
    leaving = Leaving()
    relay = a_relay(on_leave=leaving)
    await relay.put(b"first")
    pieces = reading(relay)
    await anext(pieces)
    await pieces.aclose()
    assert leaving.count == 1


async def test_a_reader_who_is_cancelled_has_left() -> None:
    leaving = Leaving()
    relay = a_relay(on_leave=leaving)
    reader = asyncio.create_task(read_all(relay))
    await settled()
    reader.cancel()
    await asyncio.wait((reader,))
    assert leaving.count == 1


async def test_leaving_after_the_last_byte_was_read_is_none() -> None:
    leaving = Leaving()
    relay = a_relay(on_leave=leaving)
    await relay.put(b"all")
    relay.close()
    pieces = reading(relay)
    assert await anext(pieces) == b"all"
    await pieces.aclose()
    relay.leave()
    assert leaving.count == 0


async def test_leaving_a_closed_relay_before_its_last_byte_was_read_is_leaving() -> None:
    leaving = Leaving()
    relay = a_relay(on_leave=leaving)
    await relay.put(b"all")
    relay.close()
    relay.leave()
    assert leaving.count == 1


# --- The audience -----------------------------------------------------------------------------------------------------


def a_reply(body: bytes) -> Reply:
    return Reply(200, body, "application/json", {})


async def test_an_audience_gets_one_reply() -> None:
    audience = Audience()
    audience.answer(a_reply(b"first"))
    audience.answer(a_reply(b"second"))
    assert audience.is_answered
    assert (await audience.reply).body == b"first"


async def test_an_audience_leaves_once() -> None:
    audience, leaving = Audience(), Leaving()
    audience.on_leave(leaving)
    audience.leave()
    audience.leave()
    assert (audience.is_gone, leaving.count) == (True, 1)


@pytest.mark.parametrize("has_left", [False, True])
async def test_who_has_left_can_still_be_answered(has_left: bool) -> None:
    audience = Audience()
    if has_left:
        audience.leave()
    audience.answer(a_reply(b"late"))
    assert audience.is_answered


async def test_who_waits_gets_the_reply() -> None:
    audience = Audience()
    waiting = asyncio.create_task(audience.wait())
    await settled()
    audience.answer(a_reply(b"here"))
    assert (await waiting).body == b"here"
    assert not audience.is_gone


async def test_a_stream_for_who_has_left_is_not_kept() -> None:
    audience = Audience()
    audience.leave()
    relay = Relay(most_bytes=1, stall_s=FOREVER, on_leave=audience.leave)
    audience.answer(Reply(200, relay, "text/event-stream", {}))
    async with asyncio.timeout(1):
        await relay.put(b"xx")
    assert relay._size == 0


@pytest.mark.parametrize("is_answered", [False, True])
async def test_whoever_is_cancelled_while_waiting_has_left(is_answered: bool) -> None:
    """Also in the very moment in which the reply comes."""
    audience = Audience()
    waiting = asyncio.create_task(audience.wait())
    await settled()
    if is_answered:
        audience.answer(a_reply(b"late"))
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert (waiting.cancelled(), audience.is_gone, audience.is_answered) == (True, True, is_answered)


async def test_leaving_a_stream_that_nobody_has_begun_to_read_lets_go_of_who_fills_it() -> None:
    audience, leaving = Audience(), Leaving()
    audience.on_leave(leaving)
    relay = Relay(most_bytes=1, stall_s=FOREVER, on_leave=audience.leave)
    audience.answer(Reply(200, relay, "text/event-stream", {}))
    putting = asyncio.create_task(relay.put(b"xx"))
    await settled()
    audience.leave()
    async with asyncio.timeout(1):
        await putting
    assert leaving.count == 1
