"""Steps of some milliseconds on the event loop, one at a time, with all else getting its turn in between.

Twenty requests that wait for the same thing (a batch of the books, say) go on in one pass of the loop. Were each of
them to read or write a body of megabytes then, nobody else would be served for twenty times as long.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

# What a body of this size takes is nothing that anybody would wait for.
LIGHT_BYTES = 64 * 1024
# A request and its answer take a few passes of the loop; so many lie between two heavy steps.
_PASSES = 4

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def take_turn_for_event(held_bytes: int, data: bytes) -> None:
    """`take_turn`, where an event of a stream of which so much is held may end with `data`."""
    if held_bytes > LIGHT_BYTES and (b"\n" in data or b"\r" in data):
        await take_turn(held_bytes)


async def take_turn(size: int) -> None:
    """Wait for one's turn to do what takes time in proportion to a body of `size` bytes, up to the next `await`."""
    if size <= LIGHT_BYTES:
        return
    loop = asyncio.get_running_loop()
    if (lock := _locks.get(loop)) is None:
        lock = _locks[loop] = asyncio.Lock()
    async with lock:
        for _ in range(_PASSES):
            await asyncio.sleep(0)
