"""The one writer of a process: a thread that commits whatever waits in one transaction, and wakes who waits.

Calls arrive from the event loop; while one batch is being committed the next one gathers, so the busier the process,
the cheaper a row. While the database is away opens are refused at once, and closes go to the spool on disk, since the
calls they belong to have happened; a close that is in the spool counts as written for who waits for it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from llm import metrics
from llm.books.heartbeat import beat, beat_interval_s, say_goodbye
from llm.books.operations import CloseCall, Closed, OpenCall, Operation, Result
from llm.books.replay import SHORT_LOCK_MS, commit_surely, is_lock_timeout, replay_abandoned, replay_some
from llm.books.settling import void_close
from llm.books.spool import Spool
from llm.deadlines import bounded, patience_s
from llm.errors import BooksUnavailable

log = structlog.get_logger("llm.books")

_RETRY_S = 0.5
# A batch that takes longer than this is not waited for by those who come after it.
_SLOW_BATCH_S = 2.0
# So long an account is left alone whose rows somebody else has locked.
_LOCKED_OUT_S = 1.0
# A transaction costs the same for one row as for ten. Where several came together, the next ones are given this long to
# gather; a lone caller never waits for company.
_LINGER_S = 0.001
_AWAY = "The books can't be written at the moment, so nothing was sent. Try again shortly."

_DATABASE_IS_AWAY = (OperationalError, InterfaceError)


@dataclass(slots=True)
class _Waiting:
    """Operations that stand or fall together in one batch, and who waits for them."""

    operations: tuple[Operation, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Result]]

    @property
    def account_id(self) -> int:
        return self.operations[-1].account_id

    @property
    def closes(self) -> tuple[CloseCall, ...]:
        return tuple(each for each in self.operations if isinstance(each, CloseCall))

    @property
    def opens(self) -> tuple[OpenCall, ...]:
        return tuple(each for each in self.operations if isinstance(each, OpenCall))


class BooksWriter:
    """Starts with its first operation. One instance a process: `writer()`."""

    def __init__(self) -> None:
        self.is_away = False
        self._failure = ""
        self.spool = Spool(Path(settings.LLM_SPOOL_DIR))
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._has_company = False
        self._batch_began_at: float | None = None
        self._kept: list[CloseCall] = []
        self._unknown_opens: list[OpenCall] = []
        self._locked_out: dict[int, float] = {}
        self._beat_at = 0.0
        self._beat_interval_s = beat_interval_s()

    def submit(self, *operations: Operation) -> asyncio.Future[list[Result]]:
        """Its result means: durably written, or for closes: durably in the spool.

        Ends in BooksUnavailable, at once, if an open is among them and can't be written; its closes are kept.
        """
        self.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        if isinstance(operations[-1], OpenCall) and self._turns_away(operations[-1].account_id):
            future.set_exception(BooksUnavailable(_AWAY))
            if closes := tuple(each for each in operations if isinstance(each, CloseCall)):
                self._queue.put(_Waiting(closes, loop, loop.create_future()))
        else:
            self._queue.put(_Waiting(operations, loop, future))
        return future

    @property
    def waiting(self) -> int:
        """Groups of operations that are not on the books yet, without those in the spool."""
        return self._queue.qsize() + len(self._kept) + len(self._unknown_opens)

    @property
    def takes_calls(self) -> bool:
        return not self.is_away and not self.spool.is_full

    def start(self) -> None:
        if self._thread is None:
            with self._start_lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="books-writer", daemon=True)
                    self._thread.start()

    def stop(self, *, timeout_s: float) -> bool:
        """Write or spool what waits and end the thread; False when that took too long."""
        if self._thread is None:
            return True
        self._queue.put(None)
        self._thread.join(timeout_s)
        stopped = not self._thread.is_alive()
        self._thread = None
        return stopped

    def _turns_away(self, account_id: int) -> bool:
        """Whether an open is better refused now than kept waiting: nothing piles up behind a database that hangs."""
        began_at, until = self._batch_began_at, self._locked_out.get(account_id)
        now = time.monotonic()
        return (
            not self.takes_calls
            or (began_at is not None and now - began_at > _SLOW_BATCH_S)
            or (until is not None and now < until)
        )

    # --- The thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.spool.prepare()
            self._guard(self._catch_up)
            while self._turn():
                pass
        finally:
            self._end()

    def _turn(self) -> bool:
        """One batch, and what is left over from before. False when asked to stop."""
        batch, is_stopping = self._gather()
        self._has_company = len(batch) > 1
        if batch:
            self._write(batch)
        if not is_stopping:
            self._guard(self._catch_up)
        return not is_stopping

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """All that waits, up to a full batch; blocks until something does or something else is due."""
        batch: list[_Waiting] = []
        try:
            item = self._queue.get(timeout=_RETRY_S if self._has_leftovers else self._beat_interval_s)
            if self._has_company:
                time.sleep(_LINGER_S)
            while item is not None:
                batch.append(item)
                if len(batch) >= settings.LLM_BATCH_SIZE:
                    return batch, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    @property
    def _has_leftovers(self) -> bool:
        return self.is_away or bool(self._kept or self._unknown_opens or self.spool.waiting_bytes)

    def _write(self, batch: list[_Waiting]) -> None:
        """The batch, without the accounts that are locked out; those go alone once their time is over."""
        if self.is_away:
            self._set_aside(batch)
            return
        now = time.monotonic()
        free = [waiting for waiting in batch if waiting.account_id not in self._locked_out]
        if free:
            self._commit(free, self._part_accounts)
        for account_id, until in list(self._locked_out.items()):
            group = [waiting for waiting in batch if waiting.account_id == account_id]
            if now < until:
                self._set_aside(group)
            else:
                self._try_account(account_id, group)

    def _part_accounts(self, batch: list[_Waiting]) -> None:
        """Somebody sits on a lock that the batch needs: find out whose rows they are, and go on with the others."""
        for account_id in dict.fromkeys(waiting.account_id for waiting in batch):
            self._try_account(account_id, [waiting for waiting in batch if waiting.account_id == account_id])

    def _try_account(self, account_id: int, group: list[_Waiting]) -> None:
        self._locked_out.pop(account_id, None)
        if group:
            self._commit(group, self._lock_out, lock_timeout_ms=SHORT_LOCK_MS)

    def _lock_out(self, group: list[_Waiting]) -> None:
        log.warning("the books of an account are locked", account_id=group[0].account_id, groups=len(group))
        self._locked_out[group[0].account_id] = time.monotonic() + _LOCKED_OUT_S
        self._set_aside(group)

    def _commit(
        self, batch: list[_Waiting], on_lock: Callable[[list[_Waiting]], None], *, lock_timeout_ms: int = 0
    ) -> None:
        if self.is_away:
            self._set_aside(batch)
            return
        operations = [operation for waiting in batch for operation in waiting.operations]
        started = self._batch_began_at = time.monotonic()
        try:
            with bounded(patience_s()):
                results = commit_surely(operations, lock_timeout_ms=lock_timeout_ms)
        except Exception as error:  # noqa: BLE001  # the outermost edge of a thread that must live
            self._batch_began_at = None
            if is_lock_timeout(error):
                on_lock(batch)
                return
            self._note_failure(error)
            self._unknown_opens += [each for waiting in batch for each in waiting.opens if not each.is_stillborn]
            self._set_aside(batch)
            return
        self._batch_began_at = None
        metrics.observe_batch(len(operations), time.monotonic() - started)
        _deliver(batch, results)

    def _note_failure(self, error: Exception) -> None:
        name = type(error).__name__
        if not self.is_away or name != self._failure:
            log.warning("books unavailable", error=name, exc_info=not isinstance(error, _DATABASE_IS_AWAY))
        self._failure = name
        self.is_away = True
        connection.close()

    def _set_aside(self, batch: Sequence[_Waiting]) -> None:
        """Refuse the opens; the closes go to the spool, or stay in memory where not even that can be written."""
        closes = [close for waiting in batch for close in waiting.closes]
        if closes:
            self._spool([*self._kept, *closes])
        for waiting in batch:
            if waiting.opens:
                _call_soon(waiting.loop, _set_exception, waiting.future)
            elif not self._kept:
                _call_soon(waiting.loop, _set_results, [(waiting.future, [Closed()] * len(waiting.operations))])

    def _spool(self, closes: list[CloseCall]) -> None:
        try:
            self.spool.append(closes)
            self._kept = []
        except OSError as error:
            log.critical("settlements are in memory only", waiting=len(closes), error=error.strerror)
            self._kept = closes

    # --- What is left over from before --------------------------------------------------------------------------------

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            with bounded(patience_s()):
                step()
        except Exception as error:  # noqa: BLE001  # the outermost edge of a thread that must live
            self._note_failure(error)

    def _catch_up(self) -> None:
        """Find out whether the database is back; then write what waits, a little at a time between two batches."""
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + self._beat_interval_s
            self.spool.prepare()
            beat()
            replay_abandoned(self.spool.folder)
        elif self.is_away:
            beat()
        elif not self._has_leftovers:
            return
        if self.is_away:
            log.info("books available again")
            self.is_away = False
        if self._unknown_opens:
            self._void_unknown_opens()
        if self._kept:
            commit_surely(self._kept)
            self._kept = []
        if self.spool.waiting_bytes:
            replay_some(self.spool.open(), most=settings.LLM_BATCH_SIZE)

    def _void_unknown_opens(self) -> None:
        """Opens whose commit may or may not have taken place; nothing was sent for them."""
        opens = [replace(each, is_stillborn=True, ask=None) for each in self._unknown_opens]
        commit_surely([operation for each in opens for operation in (each, void_close(each))])
        self._unknown_opens = []

    def _end(self) -> None:
        """Leave nothing in memory, and an empty spool or one that the next process finds."""
        if self._kept:
            self._spool(self._kept)
        if not self.is_away:
            self._guard(say_goodbye)
        self.spool.close()
        connection.close()


_writers: dict[int, BooksWriter] = {}


def writer() -> BooksWriter:
    """This process's writer; a forked child gets its own."""
    found = _writers.get(os.getpid())
    if found is None:
        found = _writers.setdefault(os.getpid(), BooksWriter())
    return found


def _deliver(batch: Sequence[_Waiting], results: Sequence[Result]) -> None:
    """One wake-up an event loop, however many wait there."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[list[Result]], list[Result]]]] = {}
    position = 0
    for waiting in batch:
        end = position + len(waiting.operations)
        by_loop.setdefault(waiting.loop, []).append((waiting.future, list(results[position:end])))
        position = end
    for loop, answers in by_loop.items():
        _call_soon(loop, _set_results, answers)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[Any], None], argument: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, argument)
    except RuntimeError:
        log.warning("an event loop ended while its writes were under way")


def _set_results(answers: list[tuple[asyncio.Future[list[Result]], list[Result]]]) -> None:
    for future, results in answers:
        if not future.done():
            future.set_result(results)


def _set_exception(future: asyncio.Future[list[Result]]) -> None:
    if not future.done():
        future.set_exception(BooksUnavailable(_AWAY))
