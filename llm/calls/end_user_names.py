"""Stores the readable names of end users beside the books, after the calls: no call waits for them, and none fails.

A process remembers which names it has written recently, so a call costs only a dict lookup. A name that can't be
written is tried again with the end user's next call; until then staff see the hash.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from itertools import islice

from django.db import DatabaseError

from llm.endusers import NamedEndUser, write_names
from llm.errors import BooksUnavailable

REMEMBERED_S = 3600.0
"""How long a name isn't written again. A forgotten name comes back with the first call after that, or earlier."""
MAX_REMEMBERED = 20_000
MAX_WAITING = 1_000
MAX_AT_A_TIME = 200


class EndUserNames:
    """For one event loop. run_db: runs a writing function, and raises BooksUnavailable or DatabaseError."""

    def __init__(self, run_db: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._run_db = run_db
        # By hash, which is different in each account: until when. The most recently written name is last.
        self._remembered: dict[str, float] = {}
        self._waiting: dict[str, NamedEndUser] = {}
        self._writing: asyncio.Task[None] | None = None

    def note(self, named: NamedEndUser) -> None:
        """A call of this end user was recorded."""
        if self._remembered.get(named.end_user, 0.0) > time.monotonic() or len(self._waiting) >= MAX_WAITING:
            return
        self._remember(named.end_user)
        self._waiting[named.end_user] = named
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def finish(self, *, within_s: float) -> None:
        """Wait for writes in progress."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=within_s)

    async def _write(self) -> None:
        """One batch after another; names noted meanwhile are in the next."""
        try:
            while self._waiting:
                batch = list(islice(self._waiting.values(), MAX_AT_A_TIME))
                await self._run_db(partial(write_names, batch))
                self._forget_waiting(batch)
        except (BooksUnavailable, DatabaseError):
            for each in self._waiting:
                self._remembered.pop(each, None)
            self._waiting.clear()
        finally:
            self._writing = None

    def _remember(self, end_user: str) -> None:
        self._remembered.pop(end_user, None)
        self._remembered[end_user] = time.monotonic() + REMEMBERED_S
        if len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _forget_waiting(self, written: Collection[NamedEndUser]) -> None:
        for each in written:
            self._waiting.pop(each.end_user, None)
