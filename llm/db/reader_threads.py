"""Threads that read from the database, in separate lanes by purpose, and reads shared by concurrent callers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import structlog
from django.db import InterfaceError, OperationalError, close_old_connections, connection, connections

from llm.db.connection_watchdog import bounded, patience_s
from llm.db.outages import Outage, is_statement_timeout, outage_of, reason_of, sentence_for_callers
from llm.errors import BooksUnavailable
from llmproject.quietlogs import Seldom

log = structlog.get_logger("llm.books")

T = TypeVar("T")

_PATIENCE_S = 2.0
_AWAY_FOR_S = 1.0
_TOLD_EACH_S = 10.0
_KEPT_S = 600.0
"""How long a thread keeps its connection: the server's memory for one grows with the queries it has run."""


class ReadLane:
    """A few threads, each with a persistent connection. Waiting or failing in one lane doesn't affect another."""

    def __init__(self, name: str, *, threads: int) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"llm-db-{name}")
        self._away_until = 0.0
        self._outage = Outage.UNAVAILABLE
        self._told = Seldom(_TOLD_EACH_S)

    async def run(self, read: Callable[[], T]) -> T:
        """Raises BooksUnavailable if the database is unavailable or hangs.

        For a moment after that, callers are refused at once instead of waiting to find out again.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            raise BooksUnavailable(sentence_for_callers(self._outage))
        try:
            async with asyncio.timeout(patience_s() or None):
                return await loop.run_in_executor(self._executor, _with_kept_connection, read)
        except (OperationalError, InterfaceError, TimeoutError) as error:
            self._tell(type(error).__name__, reason_of(error))
            self._outage = outage_of(error) or Outage.UNAVAILABLE
            if not is_statement_timeout(error):
                self._away_until = loop.time() + _AWAY_FOR_S
            raise BooksUnavailable(sentence_for_callers(self._outage)) from error

    def _tell(self, error: str, reason: str) -> None:
        """Rate-limited: everything waiting in a lane may fail at once, and made-up keys wait there too."""
        if (left_out := self._told.left_out((error, reason))) is not None:
            log.warning("database.unavailable", during="read", error=error, reason=reason, left_out=left_out)

    def connect(self) -> list[asyncio.Future[None]]:
        """Open the lane's connections before something else takes them all."""
        return self._in_each_thread(_connect)

    async def aclose(self) -> None:
        """A connection belongs to its thread, so each thread closes its own."""
        await asyncio.gather(*self._in_each_thread(connections.close_all), return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def abandon(self) -> None:
        """The same without an event loop, and without waiting."""
        self._submit_to_each(connections.close_all)
        self._executor.shutdown(wait=False)

    def _in_each_thread(self, act: Callable[[], object]) -> list[asyncio.Future[None]]:
        return [asyncio.wrap_future(future) for future in self._submit_to_each(act)]

    def _submit_to_each(self, act: Callable[[], object]) -> list[Future[None]]:
        """They wait for each other, so that each thread gets one of the jobs."""
        meeting = threading.Barrier(self._threads)
        return [self._executor.submit(_meet_and, act, meeting) for _ in range(self._threads)]


class Shared(Generic[T]):
    """One run of `work` for all who ask before it begins; later callers share the next run.

    However many ask, one run is in progress and one waits: a flood costs no more than one caller asking continuously.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    @property
    def is_idle(self) -> bool:
        return self._next is None and (self._running is None or self._running.done())

    async def get(self) -> T:
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run_after(self._running))
            self._next.add_done_callback(_retrieve)
        # A cancelled caller must not cancel the run for the others.
        return await asyncio.shield(self._next)

    async def _run_after(self, running: asyncio.Task[T] | None) -> T:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await self._work()


def _retrieve(task: asyncio.Task[T]) -> None:
    """The callers may have left, so asyncio must not report the failure as never retrieved."""
    if not task.cancelled():
        task.exception()


def _with_kept_connection(read: Callable[[], T]) -> T:
    close_old_connections()
    before = connection.connection
    try:
        with bounded(patience_s()):
            return read()
    except (OperationalError, InterfaceError):
        connections.close_all()
        raise
    finally:
        _keep_unless_same(before)


def _connect() -> None:
    # Whether the database is unavailable is found by the first query.
    with contextlib.suppress(OperationalError, InterfaceError):
        connection.ensure_connection()
    _keep_unless_same(None)


def _keep_unless_same(before: object) -> None:
    """Django's CONN_MAX_AGE is 0, for threads that come and go."""
    if connection.connection is not before:
        connection.close_at = time.monotonic() + _KEPT_S


def _meet_and(act: Callable[[], object], meeting: threading.Barrier) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        meeting.wait(_PATIENCE_S)
    act()
