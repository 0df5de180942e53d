"""What one gateway process holds for as long as it lives: caches, providers, the tasks under way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connections

from llm.books.replay import is_statement_timeout
from llm.books.writer import BooksWriter, writer
from llm.catalog import Catalog, CatalogCache, load_catalog
from llm.deadlines import bounded, patience_s
from llm.errors import BooksUnavailable, ShuttingDown, UpstreamError
from llm.exchange import Bounds
from llm.keys import Caller, CallerCache, load_caller
from llm.models import CatalogVersion
from llm.providers.base import BaseLLMProvider
from llm.providers.registry import build_provider
from llm.staff_alerts import StaffAlerts, write_alert

if TYPE_CHECKING:
    from llm.calls import RequestTask

log = structlog.get_logger("llm.books")

T = TypeVar("T")

_STOP_SECONDS = 5
"""What a call that is stopped may take to settle."""
_PATIENCE_S = 2.0
_AWAY_FOR_S = 1.0
_AWAY = "The database can't be reached at the moment. Try again shortly."


class Runtime:
    """One a process and event loop: `runtime()`."""

    def __init__(self) -> None:
        self.callers = CallerCache()
        self.is_draining = False
        self._is_closed = False
        self._database_away_until = 0.0
        self._catalog = CatalogCache()
        self._catalog_lock = asyncio.Lock()
        self._providers: dict[str, BaseLLMProvider] = {}
        self._executor = ThreadPoolExecutor(settings.LLM_DB_THREADS, thread_name_prefix="llm-db")
        self._tasks: dict[asyncio.Task[None], RequestTask] = {}
        self._alerts = StaffAlerts()
        self.drains = 0
        """Calls that read on for a caller who has left."""
        self.bounds = Bounds(
            first_byte_s=settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS,
            idle_s=settings.LLM_IDLE_TIMEOUT_SECONDS,
            total_s=settings.LLM_TOTAL_TIMEOUT_SECONDS,
            relay_bytes=settings.LLM_RELAY_BYTES,
            relay_stall_s=settings.LLM_RELAY_STALL_SECONDS,
            drain_events=settings.LLM_DISCONNECT_DRAIN_TOKENS,
        )

    @property
    def writer(self) -> BooksWriter:
        return writer()

    async def run_db(self, read: Callable[[], T]) -> T:
        """A read of the database, in a thread of ours. Raises BooksUnavailable when the database is away or hangs.

        For a moment after that, and while the writer finds it away, nobody is kept waiting to find out once more.
        """
        loop = asyncio.get_running_loop()
        if self.writer.is_away or loop.time() < self._database_away_until:
            raise BooksUnavailable(_AWAY)
        try:
            async with asyncio.timeout(patience_s() or None):
                return await loop.run_in_executor(self._executor, _with_fresh_connection, read)
        except (OperationalError, InterfaceError, TimeoutError) as error:
            log.warning("database unavailable for a read", error=type(error).__name__)
            if not is_statement_timeout(error):
                self._database_away_until = loop.time() + _AWAY_FOR_S
            raise BooksUnavailable(_AWAY) from error

    async def caller(self, secret: str, *, must_be_fresh: bool) -> Caller:
        """Whose key this is. Fresh where no open row will check the key once more."""
        caller = None if must_be_fresh else self.callers.get(secret)
        if caller is None:
            caller = await self.run_db(lambda: load_caller(secret))
            self.callers.put(secret, caller)
        return caller

    async def catalog(self) -> Catalog:
        if (catalog := self._catalog.current()) is not None:
            return catalog
        async with self._catalog_lock:
            if (catalog := self._catalog.current()) is None:
                catalog = await self.run_db(load_catalog)
                self._catalog.store(catalog)
        return catalog

    async def fresh_catalog(self) -> Catalog:
        """The catalog of the database's current version, read anew only if it has moved on."""
        self.forget_catalog(await self.run_db(CatalogVersion.current))
        return await self.catalog()

    def forget_catalog(self, version: int) -> None:
        """The books say that this version is no longer the current one."""
        self._catalog.invalidate(version)

    def provider(self, name: str) -> BaseLLMProvider:
        provider = self._providers.get(name)
        if provider is None:
            provider = self._providers[name] = build_provider(name)
        return provider

    async def tell_staff(self, provider: str, failure: UpstreamError) -> None:
        """That the provider doesn't accept our account; at most one call of an hour waits for it to be written."""
        now = datetime.now(UTC)
        if not self._alerts.is_due(provider, now):
            return
        log.warning("provider refuses our account", provider=provider, fault=failure.operator_fault)
        fault, status = failure.operator_fault, failure.upstream_status
        try:
            await self.run_db(partial(write_alert, provider, fault=fault, status=status, now=now))
        except (BooksUnavailable, DatabaseError):
            self._alerts.forget(provider, now)

    def start(self, request_task: RequestTask) -> None:
        """Run it to its end, whatever becomes of who asked for it."""
        if self.is_draining:
            raise ShuttingDown("This gateway process is about to stop. Try again.")
        task = asyncio.get_running_loop().create_task(request_task.run())
        self._tasks[task] = request_task
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)

    def begin_drain(self) -> None:
        """Take no new requests; those under way have LLM_DRAIN_SECONDS from now. Again, it changes nothing."""
        if not self.is_draining:
            self.is_draining = True
            asyncio.get_running_loop().call_later(settings.LLM_DRAIN_SECONDS, self._stop_requests)

    async def drain(self) -> None:
        """Let calls finish, settle what does not finish in time, write everything, close connections."""
        self.begin_drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=settings.LLM_DRAIN_SECONDS + _STOP_SECONDS)
        await asyncio.get_running_loop().run_in_executor(None, lambda: self.writer.stop(timeout_s=10))
        await self.aclose()

    def _stop_requests(self) -> None:
        for request_task in list(self._tasks.values()):
            request_task.stop_for_shutdown()

    async def aclose(self) -> None:
        """Close connections, to providers and to the database. A second call finds nothing left to close."""
        if self._is_closed:
            return
        self._is_closed = True
        for provider in self._providers.values():
            if (close := getattr(provider, "aclose", None)) is not None:
                with contextlib.suppress(Exception):
                    await close()
        self._providers.clear()
        await asyncio.gather(*self._close_reading_threads(), return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _close_reading_threads(self) -> list[asyncio.Future[None]]:
        """A connection belongs to its thread, so each thread closes its own: none takes two of the jobs."""
        meeting = threading.Barrier(settings.LLM_DB_THREADS)
        loop = asyncio.get_running_loop()
        jobs = range(settings.LLM_DB_THREADS)
        return [loop.run_in_executor(self._executor, _close_own_connections, meeting) for _ in jobs]


_runtimes: dict[tuple[int, int], Runtime] = {}


def runtime() -> Runtime:
    """Of this process and event loop."""
    key = os.getpid(), id(asyncio.get_running_loop())
    if (found := _runtimes.get(key)) is None:
        found = _runtimes[key] = Runtime()
    return found


async def close_runtime() -> None:
    """Drain and forget this event loop's runtime."""
    key = os.getpid(), id(asyncio.get_running_loop())
    if (found := _runtimes.pop(key, None)) is not None:
        await found.drain()


def _close_own_connections(meeting: threading.Barrier) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        meeting.wait(_PATIENCE_S)
    connections.close_all()


def _with_fresh_connection(read: Callable[[], T]) -> T:
    close_old_connections()
    try:
        with bounded(patience_s()):
            return read()
    except (OperationalError, InterfaceError):
        connections.close_all()
        raise
