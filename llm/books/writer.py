"""The one writer of a process: a thread that commits whatever waits in one transaction, and wakes who waits.

Calls arrive from the event loop; while one batch is being committed the next one gathers, so the busier the process,
the cheaper a row. An open that cannot be written now is refused at once; a close is kept and tried again until it is
on the books, since the call it belongs to has happened.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from llm import metrics
from llm.books.commit import commit_batch
from llm.books.operations import CloseCall, Conflict, Failed, OpenCall, Operation, Result
from llm.errors import BooksUnavailable

log = structlog.get_logger("llm.books")

_RETRY_SECONDS = 0.5
# A transaction costs the same for one row as for ten. Where several came together, the next ones are given this long to
# gather; a lone caller never waits for company.
_LINGER_SECONDS = 0.001
_AWAY = "The books can't be written at the moment, so nothing was sent. Try again shortly."


@dataclass(slots=True)
class _Waiting:
    """Operations that stand or fall together in one batch, and who waits for them."""

    operations: tuple[Operation, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Result]]


class BooksWriter:
    """Starts with its first operation. One instance a process: `writer()`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._kept: list[_Waiting] = []
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._has_company = False

    def submit(self, *operations: Operation) -> asyncio.Future[list[Result]]:
        """Its result means: durably written.

        Ends in BooksUnavailable if an open is among them and the database is away; closes are kept until they can be.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(operations, loop, loop.create_future())
        self._start()
        self._queue.put(waiting)
        return waiting.future

    @property
    def waiting(self) -> int:
        """Groups of operations that are not on the books yet."""
        return self._queue.qsize() + len(self._kept)

    def stop(self, *, timeout_s: float) -> bool:
        """Write what waits and end the thread; False when that took too long."""
        if self._thread is None:
            return True
        self._queue.put(None)
        self._thread.join(timeout_s)
        stopped = not self._thread.is_alive()
        self._thread = None
        return stopped

    def _start(self) -> None:
        if self._thread is None:
            with self._start_lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="books-writer", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        try:
            while self._take_and_commit():
                pass
        finally:
            connection.close()

    def _take_and_commit(self) -> bool:
        """One batch. False when asked to stop and nothing is kept back."""
        batch, is_stopping = self._gather()
        self._has_company = len(batch) > 1
        if batch:
            self._commit(batch)
        if self._kept and not is_stopping:
            time.sleep(_RETRY_SECONDS)
        return not is_stopping

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """What is kept back and all that waits, up to a full batch; blocks while there is nothing."""
        batch, self._kept = self._kept, []
        try:
            item = self._queue.get(block=not batch)
            if self._has_company:
                time.sleep(_LINGER_SECONDS)
            while item is not None:
                batch.append(item)
                if len(batch) >= settings.LLM_BATCH_SIZE:
                    return batch, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        operations = [operation for waiting in batch for operation in waiting.operations]
        started = time.perf_counter()
        try:
            results = commit_batch(operations)
        except (OperationalError, InterfaceError) as error:
            log.warning("books unavailable", error=type(error).__name__, operations=len(operations))
            connection.close()
            self._refuse(batch)
            return
        except Exception:
            log.exception("a batch of the books failed", operations=len(operations))
            connection.close()
            self._refuse(batch)
            return
        metrics.observe_batch(len(operations), time.perf_counter() - started)
        _report_trouble(operations, results)
        _deliver(batch, results)

    def _refuse(self, batch: Sequence[_Waiting]) -> None:
        """Groups with an open are refused, opens and all; closes are kept."""
        for waiting in batch:
            closes = tuple(operation for operation in waiting.operations if isinstance(operation, CloseCall))
            if len(closes) == len(waiting.operations):
                self._kept.append(waiting)
                continue
            if closes:
                self._kept.append(_Waiting(closes, waiting.loop, waiting.loop.create_future()))
            _call_soon(waiting.loop, _set_exception, waiting.future)


_writers: dict[int, BooksWriter] = {}


def writer() -> BooksWriter:
    """This process's writer; a forked child gets its own."""
    return _writers.setdefault(os.getpid(), BooksWriter())


def _report_trouble(operations: Sequence[Operation], results: Sequence[Result]) -> None:
    for operation, result in zip(operations, results, strict=True):
        if isinstance(result, Conflict | Failed):
            kind = "open" if isinstance(operation, OpenCall) else "close"
            metrics.count_conflict()
            log.error("the books refused a write", call_id=str(operation.id), kind=kind, reason=result.reason)


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


def _call_soon(loop: asyncio.AbstractEventLoop, callback: object, argument: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, argument)  # type: ignore[arg-type]  # one of the two below
    except RuntimeError:
        log.warning("an event loop ended while its writes were under way")


def _set_results(answers: list[tuple[asyncio.Future[list[Result]], list[Result]]]) -> None:
    for future, results in answers:
        if not future.done():
            future.set_result(results)


def _set_exception(future: asyncio.Future[list[Result]]) -> None:
    if not future.done():
        future.set_exception(BooksUnavailable(_AWAY))
