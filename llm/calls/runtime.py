"""Long-lived state of a gateway process: caches, providers, running tasks."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import structlog
from django.conf import settings
from django.db import DatabaseError

from llm.alerts.staff_alerts import StaffAlerts, write_alert
from llm.bodies.budget import BodyBudget
from llm.books.writer.thread import BooksWriter, writer
from llm.calls.context import Bounds
from llm.calls.end_user_names import EndUserNames
from llm.calls.refusal_counts import RefusalCounts
from llm.calls.target_health import TargetHealth
from llm.db.connection_budget import SIDE_READERS
from llm.db.outages import sentence_for_callers
from llm.db.reader_threads import ReadLane, Shared
from llm.endusers import account_key
from llm.errors import BooksUnavailable, InvalidKey, PermissionDenied, ShuttingDown, UpstreamError
from llm.keys import Caller, CallerCache, load_caller, reload_caller
from llm.models import CatalogVersion
from llm.prices.catalog import Catalog, CatalogCache, load_catalog
from llm.providers.base import BaseLLMProvider
from llm.providers.registry import build_provider, instances

log = structlog.get_logger("llm.runtime")

T = TypeVar("T")

_STOP_SECONDS = 5
"""Time for a stopped call to settle."""
_OTHER_BODIES_BYTES = 16 * 1024**2


class OwnedTask(Protocol):
    """The task that owns a call."""

    async def run(self) -> None: ...

    def stop_for_shutdown(self) -> None: ...


class Runtime:
    """One per process and event loop: see `runtime()`."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.callers = CallerCache()
        self.bodies = BodyBudget(
            max_bytes=settings.LLM_BODIES_BYTES, max_bytes_per_key=settings.LLM_BODIES_BYTES_PER_KEY
        )
        # For requests to paths without a key, such as /healthz: they can't take the room of callers with keys.
        self.other_bodies = BodyBudget(max_bytes=_OTHER_BODIES_BYTES, max_bytes_per_key=_OTHER_BODIES_BYTES)
        self.is_draining = False
        self._is_closed = False
        self._catalog = CatalogCache()
        self._catalog_lock = asyncio.Lock()
        self._providers: dict[str, BaseLLMProvider] = {}
        self._call_lane = ReadLane("calls", threads=settings.LLM_DB_THREADS)
        self._side_lane = ReadLane("side", threads=SIDE_READERS)
        self._shared: dict[Callable[[], Awaitable[Any]], Shared[Any]] = {}
        self._reloads: dict[int, Shared[Caller]] = {}
        self._tasks: dict[asyncio.Task[None], OwnedTask] = {}
        self._alerts = StaffAlerts()
        self.end_user_names = EndUserNames(self.run_side_db)
        self.refusals = RefusalCounts(self.run_side_db)
        self.health = TargetHealth()
        self.drains = 0
        """Calls that read on although their caller has left."""
        self.bounds = Bounds(
            first_byte_s=settings.LLM_FIRST_BYTE_TIMEOUT_SECONDS,
            idle_s=settings.LLM_IDLE_TIMEOUT_SECONDS,
            silence_s=settings.LLM_KEEPALIVE_SECONDS,
            total_s=settings.LLM_TOTAL_TIMEOUT_SECONDS,
            relay_bytes=settings.LLM_RELAY_BYTES,
            relay_stall_s=settings.LLM_RELAY_STALL_SECONDS,
            drain_events=settings.LLM_DISCONNECT_DRAIN_TOKENS,
        )

    @property
    def writer(self) -> BooksWriter:
        return writer()

    async def run_db(self, read: Callable[[], T]) -> T:
        """A read that calls need, in one of our threads. Raises BooksUnavailable if the database is unavailable or
        hangs.
        """
        self._require_books()
        return await self._call_lane.run(read)

    async def run_side_db(self, read: Callable[[], T]) -> T:
        """A read for anything else: many of these may come at once, and the calls' lane must stay free."""
        self._require_books()
        return await self._side_lane.run(read)

    def _require_books(self) -> None:
        """While the writer finds the database unavailable, callers needn't wait to find out again."""
        if (outage := self.writer.outage) is not None:
            raise BooksUnavailable(sentence_for_callers(outage))

    async def share(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of a run of `work` that begins after this call; concurrent callers share it.

        work: a long-lived function, such as one of a module.
        """
        shared = self._shared.get(work)
        if shared is None:
            shared = self._shared[work] = Shared(work)
        return cast("T", await shared.get())

    def connect_readers(self) -> None:
        """Open the connections for reads before something else takes them all."""
        for lane in (self._call_lane, self._side_lane):
            lane.connect()

    async def caller(self, secret: str, *, must_be_fresh: bool) -> Caller:
        """The caller of this key. Read afresh where no open row will check the key again."""
        caller = None if must_be_fresh else self.callers.get(secret)
        if caller is None:
            # Anyone can make up a key, and a known one may request lists without end.
            is_for_call = not must_be_fresh and self.callers.knows(secret)
            run = self.run_db if is_for_call else self.run_side_db
            try:
                caller = await run(lambda: load_caller(secret))
            except (InvalidKey, PermissionDenied):
                # From now on it counts as unknown: a revoked key may be sent as often as a made-up one.
                self.callers.forget(secret)
                raise
            self.callers.put(secret, caller)
        return caller

    async def fresh_caller(self, caller: Caller) -> Caller:
        """The same key as the database knows it now, read once for all concurrent requests.

        Raises InvalidKey or PermissionDenied.
        """
        key_id = caller.key_id
        shared = self._reloads.get(key_id)
        if shared is None:
            shared = self._reloads[key_id] = Shared(partial(self._reload, caller))
        try:
            return await shared.get()
        finally:
            if shared.is_idle:
                self._reloads.pop(key_id, None)

    async def _reload(self, caller: Caller) -> Caller:
        """In the side lane: a key may request models that it isn't allowed as often as it likes."""
        try:
            fresh = await self.run_side_db(lambda: reload_caller(caller))
        except (InvalidKey, PermissionDenied):
            self.callers.forget_key(caller.key_id)
            raise
        self.callers.refresh(fresh)
        return fresh

    async def end_user_key(self, caller: Caller) -> bytes:
        """The key for hashing the account's end users, created with the first call that names one."""
        if not caller.end_user_key:
            key = await self.run_db(partial(account_key, caller.account_id))
            caller = replace(caller, end_user_key=key)
            self.callers.refresh(caller)
        return caller.end_user_key

    async def catalog(self) -> Catalog:
        if (catalog := self._catalog.current()) is not None:
            return catalog
        async with self._catalog_lock:
            if (catalog := self._catalog.current()) is None:
                catalog = await self.run_db(load_catalog)
                self._catalog.store(catalog)
        return catalog

    async def fresh_catalog(self) -> Catalog:
        """The catalog of the database's current version, read again only if the version has changed."""
        self.forget_catalog(await self.share(_current_version))
        return await self.catalog()

    def forget_catalog(self, version: int) -> None:
        """The books say that this version is no longer the current one."""
        self._catalog.invalidate(version)

    def provider(self, instance: str, credential: str = "") -> BaseLLMProvider:
        """The object that calls an instance with one of its keys. Raises LookupError for an unknown instance."""
        name = f"{instance}/{credential}" if credential else instance
        provider = self._providers.get(name)
        if provider is None:
            provider = self._providers[name] = build_provider(instance, credential)
        return provider

    def load_providers(self) -> None:
        """Those that will surely be called. Importing an SDK takes a second in which no stream would move."""
        default = settings.LLM_PROVIDER
        for instance in instances().all:
            if instance.name == default or (settings.LLM_PROVIDERS and not instance.lacks):
                self.provider(instance.name, instance.credentials[0].id)

    async def tell_staff(self, provider: str, failure: UpstreamError) -> None:
        """The instance refuses our own account. At most one call per hour waits for the alert to be written."""
        now = datetime.now(UTC)
        if not self._alerts.is_due(provider, now):
            return
        log.warning("provider.account_refused", provider=provider, fault=failure.operator_fault)
        fault, status = failure.operator_fault, failure.upstream_status
        try:
            await self.run_db(partial(write_alert, provider, fault=fault, status=status, now=now))
        except (BooksUnavailable, DatabaseError):
            self._alerts.forget(provider, now)

    def start(self, request_task: OwnedTask, *, on_end: Callable[[], None] | None = None) -> None:
        """Run it to its end, even if its requester goes away; then call `on_end`."""
        if self.is_draining:
            raise ShuttingDown("This gateway process is shutting down. Try again.")
        task = asyncio.get_running_loop().create_task(request_task.run())
        self._tasks[task] = request_task
        task.add_done_callback(self._forget)
        if on_end is not None:
            task.add_done_callback(lambda _: on_end())

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)

    def begin_drain(self) -> None:
        """Take no new requests; those running have LLM_DRAIN_SECONDS from now. Calling it again changes nothing."""
        if not self.is_draining:
            self.is_draining = True
            asyncio.get_running_loop().call_later(settings.LLM_DRAIN_SECONDS, self._stop_requests)

    async def drain(self) -> None:
        """Let calls finish, settle those that don't finish in time, write everything, close connections."""
        self.begin_drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=settings.LLM_DRAIN_SECONDS + _STOP_SECONDS)
        await self.end_user_names.finish(within_s=_STOP_SECONDS)
        await self.refusals.finish(within_s=_STOP_SECONDS)
        await asyncio.get_running_loop().run_in_executor(None, lambda: self.writer.stop(timeout_s=10))
        await self.aclose()

    def _stop_requests(self) -> None:
        for request_task in list(self._tasks.values()):
            request_task.stop_for_shutdown()

    async def aclose(self) -> None:
        """Close connections to providers and the database. A second call finds nothing left to close."""
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
    """The one of this process and event loop."""
    key = os.getpid(), id(asyncio.get_running_loop())
    if (found := _runtimes.get(key)) is None:
        _abandon_ended()
        found = _runtimes[key] = Runtime()
    return found


def _abandon_ended() -> None:
    """A program that embeds the gateway may run one loop per call: the runtime of an ended loop holds no connection."""
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
