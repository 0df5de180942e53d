"""What one gateway process holds for as long as it lives: caches, providers, the tasks under way."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.conf import settings

from llm.books.writer import BooksWriter, writer
from llm.budget import SIDE_READERS
from llm.catalog import Catalog, CatalogCache, load_catalog
from llm.errors import BooksUnavailable, ShuttingDown
from llm.exchange import Bounds
from llm.keys import Caller, CallerCache, load_caller
from llm.lanes import ReadLane, Shared
from llm.models import CatalogVersion
from llm.outages import sentence_for_callers
from llm.providers.base import BaseLLMProvider
from llm.providers.registry import build_provider

if TYPE_CHECKING:
    from llm.calls import RequestTask

T = TypeVar("T")

_STOP_SECONDS = 5
"""What a call that is stopped may take to settle."""


class Runtime:
    """One a process and event loop: `runtime()`."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.callers = CallerCache()
        self.is_draining = False
        self._is_closed = False
        self._catalog = CatalogCache()
        self._catalog_lock = asyncio.Lock()
        self._providers: dict[str, BaseLLMProvider] = {}
        self._call_lane = ReadLane("calls", threads=settings.LLM_DB_THREADS)
        self._side_lane = ReadLane("side", threads=SIDE_READERS)
        self._shared: dict[Callable[[], Awaitable[Any]], Shared[Any]] = {}
        self._tasks: dict[asyncio.Task[None], RequestTask] = {}
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
        """A read that calls need, in a thread of ours. Raises BooksUnavailable when the database is away or hangs."""
        self._require_books()
        return await self._call_lane.run(read)

    async def run_side_db(self, read: Callable[[], T]) -> T:
        """A read for anybody else: many of these may come at a time, and calls must find their lane free."""
        self._require_books()
        return await self._side_lane.run(read)

    def _require_books(self) -> None:
        """While the writer finds the database away, nobody is kept waiting to find out once more."""
        if (outage := self.writer.outage) is not None:
            raise BooksUnavailable(sentence_for_callers(outage))

    async def share(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` finds that begins after this; whoever else asks for the same meanwhile shares it.

        work: a function that stays, such as one of a module.
        """
        shared = self._shared.get(work)
        if shared is None:
            shared = self._shared[work] = Shared(work)
        return cast("T", await shared.get())

    def connect_readers(self) -> None:
        """Take the connections that reads need before anybody else has them all."""
        for lane in (self._call_lane, self._side_lane):
            lane.connect()

    async def caller(self, secret: str, *, must_be_fresh: bool) -> Caller:
        """Whose key this is. Fresh where no open row will check the key once more."""
        caller = None if must_be_fresh else self.callers.get(secret)
        if caller is None:
            # Anybody can make up a key, and a known one may ask for lists without end.
            is_for_call = not must_be_fresh and self.callers.knows(secret)
            run = self.run_db if is_for_call else self.run_side_db
            caller = await run(lambda: load_caller(secret))
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
        self.forget_catalog(await self.share(_current_version))
        return await self.catalog()

    def forget_catalog(self, version: int) -> None:
        """The books say that this version is no longer the current one."""
        self._catalog.invalidate(version)

    def provider(self, name: str) -> BaseLLMProvider:
        provider = self._providers.get(name)
        if provider is None:
            provider = self._providers[name] = build_provider(name)
        return provider

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
        await asyncio.gather(self._call_lane.aclose(), self._side_lane.aclose())

    def abandon(self) -> None:
        """Its event loop has ended without `aclose`."""
        for lane in (self._call_lane, self._side_lane):
            lane.abandon()


_runtimes: dict[tuple[int, int], Runtime] = {}


def runtime() -> Runtime:
    """Of this process and event loop."""
    key = os.getpid(), id(asyncio.get_running_loop())
    if (found := _runtimes.get(key)) is None:
        _abandon_ended()
        found = _runtimes[key] = Runtime()
    return found


def _abandon_ended() -> None:
    """Whoever embeds the gateway may run a loop for each call: what an ended one left takes no connection further."""
    for key, found in list(_runtimes.items()):
        if key[0] == os.getpid() and found.loop.is_closed():
            _runtimes.pop(key, None)
            found.abandon()


async def close_runtime() -> None:
    """Drain and forget this event loop's runtime."""
    key = os.getpid(), id(asyncio.get_running_loop())
    if (found := _runtimes.pop(key, None)) is not None:
        await found.drain()


async def _current_version() -> int:
    return await runtime().run_side_db(CatalogVersion.current)
