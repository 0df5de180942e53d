"""Steps of several milliseconds on the event loop, one at a time, with everything else running in between.

Twenty requests that wait for the same thing (a batch of the books, say) resume in one pass of the loop. If each of them
then parsed or wrote a body of megabytes, nothing else would run for twenty times as long.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

# Processing a body of this size is short enough.
LIGHT_BYTES = 64 * 1024
# A request and its response take a few passes of the loop; this many lie between two heavy steps.
_PASSES = 4

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def take_turn_for_event(held_bytes: int, data: bytes) -> None:
    """`take_turn`, if an event of a stream that holds this much may end with `data`."""
    if held_bytes > LIGHT_BYTES and (b"\n" in data or b"\r" in data):
        await take_turn(held_bytes)


async def take_turn(size: int) -> None:
    """Wait for a turn to do work proportional to a body of `size` bytes, up to the next `await`."""
    if size <= LIGHT_BYTES:
        return
    loop = asyncio.get_running_loop()
    if (lock := _locks.get(loop)) is None:
        lock = _locks[loop] = asyncio.Lock()
    async with lock:
        for _ in range(_PASSES):
            await asyncio.sleep(0)
