"""What request bodies may take of a process's memory, in all and by key; and giving it back.

A body counts from its announced length on, until both its caller and its call are done with it. What a parser makes of
it counts too. So many bodies at a time are all that a process ever holds, whoever sends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections import Counter
from collections.abc import Callable
from functools import cache

from llm.errors import Overloaded

# What one parsed value takes, about: an object, its place in a list or dictionary, and its key.
VALUE_BYTES = 100
# Freed memory of smaller bodies is soon used again.
_WORTH_TRIMMING_BYTES = 1024**2
_TRIM_AFTER_S = 1.0

_FULL = "This gateway process holds as many request bodies as it may. Try again shortly."
_KEY_FULL = "The in-flight requests of this API key hold as many bytes as they may. Try again shortly."


class BodyBudget:
    """max_bytes: in this process; max_bytes_per_key: of them, for each key. key_id None: callers without one."""

    def __init__(self, *, max_bytes: int, max_bytes_per_key: int) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_per_key = max_bytes_per_key
        self._by_key: Counter[int | None] = Counter()
        self._trimmer: asyncio.TimerHandle | None = None
        self.bytes_in_work = 0
        self.peak_bytes = 0

    def lease(self, key_id: int | None) -> BodyLease:
        """Of nothing yet; whoever gets it must release it."""
        return BodyLease(self, key_id)

    def take(self, key_id: int | None, size: int) -> None:
        """Raises Overloaded, and takes nothing then."""
        if self._by_key[key_id] + size > self._max_bytes_per_key:
            raise Overloaded(_FULL if key_id is None else _KEY_FULL)
        if self.bytes_in_work + size > self._max_bytes:
            raise Overloaded(_FULL)
        self._by_key[key_id] += size
        self.bytes_in_work += size
        self.peak_bytes = max(self.peak_bytes, self.bytes_in_work)

    def give_back(self, key_id: int | None, size: int) -> None:
        self._by_key[key_id] -= size
        self.bytes_in_work -= size
        if not self._by_key[key_id]:
            del self._by_key[key_id]
        if size >= _WORTH_TRIMMING_BYTES:
            self._trim_soon()

    def _trim_soon(self) -> None:
        """Once for all that end within a moment, and after their last references have gone."""
        if self._trimmer is None:
            self._trimmer = asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim)

    def _trim(self) -> None:
        self._trimmer = None
        # Requests leave cycles behind (REST framework's requests and views know each other), and with them what
        # was made of a body, until the collector comes by. They are young: older objects need not be looked at.
        gc.collect(1)
        asyncio.get_running_loop().run_in_executor(None, trim_memory)


class BodyLease:
    """What one request's body takes. Several may hold it (the caller's response, the call); the last one ends it."""

    def __init__(self, budget: BodyBudget, key_id: int | None) -> None:
        self._budget = budget
        self._key_id = key_id
        self._holders = 1
        self.size = 0

    def grow_to(self, size: int) -> None:
        """Raises Overloaded; the lease then stays as it was."""
        if size > self.size:
            self._budget.take(self._key_id, size - self.size)
            self.size = size

    def add_values(self, count: int) -> None:
        """Room for the objects that a parser makes. Raises Overloaded."""
        self.grow_to(self.size + count * VALUE_BYTES)

    def share(self) -> Callable[[], None]:
        """One more holder; it calls what is returned, once."""
        self._holders += 1
        return self.release

    def release(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._budget.give_back(self._key_id, self.size)


def trim_memory() -> None:
    """Give freed memory back to the system: glibc keeps it, and after a few large bodies that is all they took."""
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """None where the C library is another one (musl, macOS), which gives memory back by itself."""
    with contextlib.suppress(OSError, AttributeError):
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return function
    return None
