"""Giving memory back: glibc keeps what is freed, and after a few large bodies or replies that is all they took."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator
from functools import cache
from weakref import WeakKeyDictionary

WORTH_TRIMMING_BYTES = 1024**2
"""Freed memory of what is smaller is soon used again."""
_TRIM_AFTER_S = 1.0

_timers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle] = WeakKeyDictionary()


def trim_soon() -> None:
    """Once for all that end within a moment, and after their last references have gone."""
    loop = asyncio.get_running_loop()
    if loop not in _timers:
        _timers[loop] = loop.call_later(_TRIM_AFTER_S, _trim, loop)


@contextlib.contextmanager
def trimmed_after() -> Iterator[Callable[[int], None]]:
    """For what is held piece by piece: its sizes are noted. Not before its end, or what lives would count as old."""
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
    # Requests leave cycles behind (REST framework's requests and views know each other), and with them what
    # was made of a body, until the collector comes by. They are young: older objects need not be looked at.
    gc.collect(1)
    loop.run_in_executor(None, trim_memory)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """None where the C library is another one (musl, macOS), which gives memory back by itself."""
    with contextlib.suppress(OSError, AttributeError):
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return function
    return None
