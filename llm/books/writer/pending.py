"""Operations on their way to the writer's thread, and results on their way back to the waiting event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from llm.books.operations import CloseCall, Closed, OpenCall, Operation, Result
from llm.db.outages import Outage, sentence_for_callers
from llm.errors import BooksUnavailable

log = structlog.get_logger("llm.books")

_AWAY = "The books can't be written at the moment, so nothing was sent. Try again shortly."

PendingResult = tuple[asyncio.Future[list[Result]], list[Result]]


@dataclass(slots=True)
class PendingWrite:
    """Operations that succeed or fail together in one batch, and their waiter. An open comes last."""

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


def deliver(batch: Iterable[PendingWrite], results: Sequence[Result]) -> None:
    """One wake-up per event loop, however many wait there. results: in the order of the batch's operations."""
    by_loop: dict[asyncio.AbstractEventLoop, list[PendingResult]] = {}
    position = 0
    for waiting in batch:
        end = position + len(waiting.operations)
        by_loop.setdefault(waiting.loop, []).append((waiting.future, list(results[position:end])))
        position = end
    for loop, answers in by_loop.items():
        _call_soon(loop, _set_results, answers)


def acknowledge(waiting: PendingWrite) -> None:
    """Its closes count as written."""
    deliver((waiting,), [Closed()] * len(waiting.operations))


def refuse(waiting: PendingWrite, outage: Outage | None = None) -> None:
    """Its open couldn't be written."""
    _call_soon(waiting.loop, partial(_set_exception, refusal(outage)), waiting.future)


def refusal(outage: Outage | None) -> BooksUnavailable:
    """outage: of the database, if that is the reason."""
    return BooksUnavailable(_AWAY if outage is None else f"{sentence_for_callers(outage)} Nothing was sent.")


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[Any], None], argument: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, argument)
    except RuntimeError:
        log.warning("books.event_loop_gone")


def _set_results(answers: Iterable[PendingResult]) -> None:
    for future, results in answers:
        if not future.done():
            future.set_result(results)


def _set_exception(error: BooksUnavailable, future: asyncio.Future[list[Result]]) -> None:
    if not future.done():
        future.set_exception(error)
