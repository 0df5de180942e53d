"""Gives memory back: glibc keeps what is freed, and a few large bodies or replies would occupy it for good."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator
from functools import cache
from weakref import WeakKeyDictionary

WORTH_TRIMMING_BYTES = 1024**2
"""Freed memory of smaller texts is soon reused."""
_TRIM_AFTER_S = 1.0

_timers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle] = WeakKeyDictionary()


def trim_soon() -> None:
    """Once for all texts that end at about the same time, after their last references are gone."""
    loop = asyncio.get_running_loop()
    if loop not in _timers:
        _timers[loop] = loop.call_later(_TRIM_AFTER_S, _trim, loop)


@contextlib.contextmanager
def trimmed_after() -> Iterator[Callable[[int], None]]:
    """For texts held in parts, whose sizes are recorded. Not before the end, or live objects would age."""
    largest = 0

    def note_size(size: int) -> None:
        nonlocal largest
        largest = max(largest, size)

    try:
        yield note_size
    finally:
        if largest >= WORTH_TRIMMING_BYTES:
            trim_soon()


def trim_memory() -> None:
    if (trim := _malloc_trim()) is not None:
        trim(0)


def _trim(loop: asyncio.AbstractEventLoop) -> None:
    _timers.pop(loop, None)
    # Requests leave reference cycles behind (REST framework's requests and views refer to each other), and with them
    # the parsed body, until a collection. They are young: older objects needn't be examined.
    gc.collect(1)
    loop.run_in_executor(None, trim_memory)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """None with another C library (musl, macOS), which returns memory by itself."""
    with contextlib.suppress(OSError, AttributeError):
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return function
    return None
