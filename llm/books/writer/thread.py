"""The single writer of a process: a thread that commits everything waiting in one transaction, and wakes the waiters.

Calls arrive from the event loop; while one batch is committed the next one gathers, so the busier the process, the
cheaper a row. While the database is unavailable, opens are refused at once, and closes go to the spool on disk, since
their calls have happened; a close in the spool counts as written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from llm import metrics
from llm.books.batches.contention import ContendedAccounts
from llm.books.heartbeat import beat, beat_interval_s, say_goodbye
from llm.books.operations import OpenCall, Operation, Result
from llm.books.spool.files import Spool
from llm.books.spool.replay import commit_surely, is_lock_timeout, unanswered_closes
from llm.books.writer.backlog import Backlog
from llm.books.writer.pending import PendingWrite, acknowledge, deliver, refusal, refuse
from llm.db.connection_watchdog import bounded, patience_s
from llm.db.outages import Outage, outage_of, reason_of
from llm.db.prepared import prepare_statements_of_this_thread
from llm.errors import describe_exception

log = structlog.get_logger("llm.books")

_RETRY_S = 0.5
# A transaction costs the same for one row as for ten. If several came together, the next ones get this long to gather;
# a single caller never waits for others.
_LINGER_S = 0.001


class BooksWriter:
    """Starts with its first operation. One instance per process: `writer()`."""

    def __init__(self) -> None:
        self.outage: Outage | None = None
        """Why the database is unavailable; None if it isn't."""
        self._failure = ""
        self._backlog = Backlog(Path(settings.LLM_SPOOL_DIR))
        self._lockouts = ContendedAccounts()
        self._queue: queue.SimpleQueue[PendingWrite | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._life_lock = threading.Lock()
        self._is_stopping = False
        self._has_company = False
        self._turns = SlowTurnDetector()
        self._beat_at = 0.0
        self._beat_interval_s = beat_interval_s()
        self._reported: metrics.WriterState | None = None

    def submit(self, *operations: Operation) -> asyncio.Future[list[Result]]:
        """The result means: durably written or, for closes, durably in the spool.

        Fails with BooksUnavailable, at once, if the last one is an open and can't be written; its closes are kept.
        """
        self.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        if isinstance(operations[-1], OpenCall) and self._turns_away(operations[-1].account_id):
            future.set_exception(refusal(self.outage))
            if closes := operations[:-1]:
                self._put(PendingWrite(closes, loop, loop.create_future()))
        else:
            self._put(PendingWrite(operations, loop, future))
        return future

    @property
    def spool(self) -> Spool:
        return self._backlog.spool

    @property
    def spool_bytes(self) -> int:
        return self._backlog.spool_bytes

    @property
    def waiting(self) -> int:
        """Groups of operations that aren't on the books yet, without those in the spool."""
        return self._queue.qsize() + self._backlog.in_memory

    @property
    def is_away(self) -> bool:
        return self.outage is not None

    @property
    def takes_calls(self) -> bool:
        return not self.is_away and not self.spool.is_full

    def start(self) -> None:
        """Also after `stop`, and if the thread has died."""
        if self._thread is None or not self._thread.is_alive():
            with self._life_lock:
                self._start_thread()

    def _start_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._is_stopping = False
            self._thread = threading.Thread(target=self._run, name="books-writer", daemon=True)
            self._thread.start()

    def _put(self, waiting: PendingWrite) -> None:
        """Under the lock: nothing may be queued behind a thread that has read the queue for the last time."""
        with self._life_lock:
            self._start_thread()
            self._queue.put(waiting)

    def stop(self, *, timeout_s: float) -> bool:
        """Write or spool what waits and end the thread; False if that took too long."""
        with self._life_lock:
            thread = self._thread
            if thread is None or not thread.is_alive():
                return True
            self._queue.put(None)
        thread.join(timeout_s)
        if thread.is_alive():
            log.error("books.writer_stop_timeout", waiting=self.waiting)
        return not thread.is_alive()

    def _turns_away(self, account_id: int) -> bool:
        """Whether to refuse an open rather than queue it: nothing may pile up behind a database that hangs."""
        return not self.takes_calls or self._turns.is_slow() or self._lockouts.is_out(account_id)

    # --- The thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        prepare_statements_of_this_thread()
        try:
            self._beat_at = 0.0
            self._guard(self._catch_up)
            while self._turn():
                pass
        finally:
            self._end()

    def _turn(self) -> bool:
        """One batch, and part of the backlog. False once asked to stop and nothing waits any more."""
        batch = self._gather()
        self._turns.begin()
        self._has_company = len(batch) > 1
        if batch:
            self._write_safely(batch)
        if not self._is_stopping:
            self._guard(self._catch_up)
        self._report()
        self._turns.end()
        return not (self._is_stopping and self._queue.empty())

    def _gather(self) -> list[PendingWrite]:
        """Everything waiting, up to a full batch; blocks until there is something, or the backlog is due."""
        batch: list[PendingWrite] = []
        try:
            item = self._queue.get(timeout=self._pause_s())
            if self._has_company:
                time.sleep(_LINGER_S)
            while True:
                if item is None:
                    self._is_stopping = True
                else:
                    batch.append(item)
                if len(batch) >= settings.LLM_BATCH_SIZE:
                    return batch
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch

    def _pause_s(self) -> float:
        if self._is_stopping:
            return 0.0
        if self.is_away:
            return _RETRY_S
        backlog_s = self._backlog.wait_s
        return self._beat_interval_s if backlog_s is None else min(backlog_s, self._beat_interval_s)

    def _write_safely(self, batch: list[PendingWrite]) -> None:
        try:
            self._write(batch)
        except Exception as error:  # noqa: BLE001  # the outermost edge of a thread that must live
            # Whatever it is, no caller may be left waiting, and what has happened must be kept.
            log.error("books.writer_failed", **describe_exception(error))  # noqa: TRY400
            self._backlog.keep_in_memory([close for waiting in batch for close in waiting.closes])
            for waiting in batch:
                if waiting.opens:
                    refuse(waiting)

    def _write(self, batch: list[PendingWrite]) -> None:
        """The batch, without accounts set aside recently: those are tried alone, once their time is over."""
        suspect = [waiting for waiting in batch if self._lockouts.is_suspect(waiting.account_id)]
        free = [waiting for waiting in batch if not self._lockouts.is_suspect(waiting.account_id)]
        if free:
            self._commit(free, self._write_by_account)
        self._write_by_account(suspect)

    def _write_by_account(self, batch: list[PendingWrite]) -> None:
        """The batch needs a lock that is held: find out whose rows are locked, and write the others."""
        groups: defaultdict[int, list[PendingWrite]] = defaultdict(list)
        for waiting in batch:
            groups[waiting.account_id].append(waiting)
        for account_id, group in groups.items():
            if self._lockouts.is_out(account_id):
                self._set_aside(group)
            elif self._commit(group, self._lock_out, lock_timeout_ms=self._lockouts.lock_timeout_ms):
                self._lockouts.release(account_id)
        self._lockouts.forget_old()

    def _lock_out(self, group: list[PendingWrite]) -> None:
        account_id = group[0].account_id
        seconds = self._lockouts.lock_out(account_id)
        log.warning("books.account_contended", account_id=account_id, groups=len(group), seconds=seconds)
        self._set_aside(group)

    def _commit(
        self, batch: list[PendingWrite], on_lock: Callable[[list[PendingWrite]], None], *, lock_timeout_ms: int = 0
    ) -> bool:
        """Whether it was written."""
        if self.is_away:
            self._set_aside(batch)
            return False
        operations = [operation for waiting in batch for operation in waiting.operations]
        started = time.monotonic()
        try:
            with bounded(patience_s()):
                results = commit_surely(operations, lock_timeout_ms=lock_timeout_ms)
        except Exception as error:  # noqa: BLE001  # the outermost edge of a thread that must live
            if is_lock_timeout(error):
                on_lock(batch)
                return False
            self._note_failure(error)
            self._backlog.doubt([each for waiting in batch for each in waiting.opens])
            self._set_aside(batch)
            return False
        if unanswered := unanswered_closes(operations, results):
            self._backlog.keep(unanswered)
        deliver(batch, results)
        metrics.observe_batch(len(operations), time.monotonic() - started)
        return True

    def _note_failure(self, error: Exception) -> None:
        name, is_strange = type(error).__name__, not isinstance(error, OperationalError | InterfaceError)
        reason = reason_of(error)
        if not self.is_away or reason != self._failure:
            details = describe_exception(error) if is_strange else {"error": name}
            log.warning("books.unavailable", reason=reason, **details)
        self._failure = reason
        self.outage = outage_of(error) or Outage.UNAVAILABLE
        connection.close()

    def _set_aside(self, batch: Sequence[PendingWrite]) -> None:
        """Refuse the opens; the closes go to the spool, or stay in memory if that fails too."""
        closes = [close for waiting in batch for close in waiting.closes]
        are_safe = not closes or self._backlog.keep(closes)
        for waiting in batch:
            if waiting.opens:
                refuse(waiting, self.outage)
            elif are_safe:
                acknowledge(waiting)

    # --- The backlog --------------------------------------------------------------------------------------------------

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            with bounded(patience_s()):
                step()
        except Exception as error:  # noqa: BLE001  # the outermost edge of a thread that must live
            self._note_failure(error)

    def _catch_up(self) -> None:
        """Find out whether the database is back; then write the backlog, a little between any two batches."""
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + self._beat_interval_s
            self._backlog.prepare()
            beat()
            self._backlog.inherit()
        elif self.is_away:
            beat()
        elif self._backlog.wait_s != 0.0:
            return
        if self.is_away:
            log.info("books.available")
            self.outage = None
        self._backlog.write_some()

    def _end(self) -> None:
        """Leave nothing in memory or in the queue, and an empty spool or one that the next process finds."""
        if not self.is_away:
            self._guard(say_goodbye)
        while True:
            self._set_aside(self._take_rest())
            self._backlog.close()
            self._report()
            connection.close()
            with self._life_lock:
                if self._queue.empty():
                    self._thread = None
                    return

    def _take_rest(self) -> list[PendingWrite]:
        """Operations submitted while the thread was about to end."""
        rest: list[PendingWrite] = []
        with contextlib.suppress(queue.Empty):
            while True:
                if (item := self._queue.get_nowait()) is not None:
                    rest.append(item)
        return rest

    def _report(self) -> None:
        figures = metrics.WriterState(self.is_away, self.spool.is_full, self.waiting, self.spool_bytes)
        if figures != self._reported:
            self._reported = figures
            metrics.note_books(figures)


_writers: dict[int, BooksWriter] = {}


def writer() -> BooksWriter:
    """This process's writer; a forked child gets its own."""
    found = _writers.get(os.getpid())
    if found is None:
        found = _writers.setdefault(os.getpid(), BooksWriter())
    return found


# --- Slow turns of the writer's thread: behind one, no caller is kept waiting -----------------------------------------

_SLOW_S = 2.0


class SlowTurnDetector:
    """The writer's thread reports the begin and end of its turns; other threads may call `is_slow`."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._told_of: float | None = None

    def begin(self) -> None:
        self._began_at = time.monotonic()

    def end(self) -> None:
        self._began_at = None

    def is_slow(self) -> bool:
        """Whether a turn takes too long. Logged once a turn: otherwise nothing would explain why calls are refused."""
        began_at = self._began_at
        if began_at is None or time.monotonic() - began_at <= _SLOW_S:
            return False
        if began_at != self._told_of:
            self._told_of = began_at
            log.warning("books.slow", seconds=_SLOW_S)
        return True
