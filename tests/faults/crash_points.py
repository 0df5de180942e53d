"""Lines of the gateway's code at which a worker kills itself when a campaign orders it to: `kill -9` right there.

The gateway knows nothing of it. The campaign's own server wraps functions of the gateway before it forks its workers; a
worker that passes a point looks for an order with its pid, and obeys by SIGKILL: no handler runs, nothing is flushed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER_VARIABLE = "LLM_FAULTS_ORDERS"
"""Names the folder of a gateway's orders to its server."""

# So soon after a request has left, and before an upstream that takes its time has answered.
_SOON_S = 0.02

Moment = Literal["before", "after", "soon", "halfway"]
Asked = Callable[..., bool]


def _always(*_: object) -> bool:
    return True


def _has_open(*arguments: object) -> bool:
    return type(arguments[-1]).__name__ == "OpenCall"


def _has_close(*arguments: object) -> bool:
    return type(arguments[-1]).__name__ == "CloseCall"


@dataclass(frozen=True, slots=True)
class Point:
    """place: "module:name" of a function. moment: before it starts, after it has ended, soon after its start, or when
    half of what it is to write is written. concerns: which calls of it, by their arguments.

    max_passes: how often it may be passed first. is_of_outages: it is passed only where the database is, or was, away.
    """

    place: str
    moment: Moment
    max_passes: int = 10
    concerns: Asked = _always
    is_of_outages: bool = False


def _of_outages(place: str, moment: Moment) -> Point:
    return Point(place, moment, max_passes=2, is_of_outages=True)


_SUBMIT = "llm.books.writer.thread:BooksWriter.submit"
_WRITE = "llm.books.batches.session:BatchSession.write"
_COMMIT = "llm.books.writer.thread:commit_surely"
_OPEN = "llm.calls.task:RequestTask._open"
_SEND = "llm.providers.openai:OpenAIProvider.forward"
_FIRST_BYTE = "llm.calls.upstream_call:UpstreamCall._begin_reply"
_EVENT = "llm.calls.upstream_call:UpstreamCall._pass_on"
_SETTLE_COMPLETE = "llm.calls.upstream_call:UpstreamCall._complete"
_SETTLE = "llm.calls.upstream_call:UpstreamCall.settle"
_ANSWER = "llm.calls.upstream_call:UpstreamCall._answer_whole"
_END_STREAM = "llm.calls.upstream_call:UpstreamCall._close_stream"
_APPEND = "llm.books.spool.files:SpoolFile.append"
_WRITE_ALL = "llm.books.spool.files:_write_all"
_FORGET = "llm.books.spool.files:SpoolFile.forget_read"

POINTS: Mapping[str, Point] = {
    "before the open is asked for": Point(_SUBMIT, "before", concerns=_has_open),
    "before a batch is written": Point(_WRITE, "before"),
    "after a batch is written": Point(_WRITE, "after"),
    "after a commit that nobody has heard of": Point(_COMMIT, "after"),
    "after the open": Point(_OPEN, "after"),
    "before sending": Point(_SEND, "before"),
    "after sending": Point(_SEND, "soon"),
    "after the reply's head": Point(_SEND, "after"),
    "before the first byte": Point(_FIRST_BYTE, "before"),
    "after the first byte": Point(_FIRST_BYTE, "after"),
    "before an event": Point(_EVENT, "before", max_passes=100),
    "after an event": Point(_EVENT, "after", max_passes=100),
    "after the usage": Point(_SETTLE_COMPLETE, "before"),
    "before the settlement": Point(_SETTLE, "before"),
    "before the settlement is asked for": Point(_SUBMIT, "before", concerns=_has_close),
    "after the settlement": Point(_SETTLE, "after"),
    "before a whole answer": Point(_ANSWER, "before", max_passes=5),
    "after a whole answer": Point(_ANSWER, "after", max_passes=5),
    "before a stream's end": Point(_END_STREAM, "before"),
    "after a stream's end": Point(_END_STREAM, "after"),
    "before the spool": _of_outages(_APPEND, "before"),
    "half a record in the spool": _of_outages(_WRITE_ALL, "halfway"),
    "a record in the spool, not synced": _of_outages(_WRITE_ALL, "after"),
    "after the spool": _of_outages(_APPEND, "after"),
    "before a replay": _of_outages("llm.books.spool.replay:commit_by_account", "before"),
    "after a replay, not forgotten": _of_outages(_FORGET, "before"),
    "after a replay, forgotten": _of_outages(_FORGET, "after"),
    "before unheard opens are voided": _of_outages("llm.books.writer.backlog:Backlog._void_unknown_opens", "before"),
    "after unheard opens are voided": _of_outages("llm.books.writer.backlog:Backlog._void_unknown_opens", "after"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """To one worker, from the campaign."""

    path: Path
    carried_out: Path

    @property
    def is_carried_out(self) -> bool:
        return self.carried_out.exists()

    def withdraw(self) -> None:
        """Too late where the worker is at it."""
        self.path.unlink(missing_ok=True)


class Orders:
    """A folder in which a campaign leaves orders, and workers of one gateway find theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._passed: Counter[str] = Counter()

    def give(self, pid: int, name: str, *, passes: int) -> Order:
        """The worker is to die when it passes the point for that many times from now on."""
        number = next(self._numbers)
        self._folder.mkdir(exist_ok=True)
        draft = self._folder / f"draft-{number}"
        draft.write_text(f"{number}\n{name}\n{passes}")
        order = Order(self._folder / str(pid), self._folder / f"carried-out-{number}")
        draft.rename(order.path)
        return order

    def pass_by(self, name: str) -> None:
        """Called in a worker; does not return if it is to die here."""
        if self.is_due(name):
            self.die()

    def is_due(self, name: str) -> bool:
        try:
            number, ordered, passes = self._own.read_text().split("\n")
        except (FileNotFoundError, ValueError):
            return False
        if ordered != name:
            return False
        self._passed[number] += 1
        return self._passed[number] >= int(passes)

    def die(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            number = self._own.read_text().partition("\n")[0]
            self._own.rename(self._folder / f"carried-out-{number}")
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def _own(self) -> Path:
        return self._folder / str(os.getpid())


def install(orders: Orders) -> None:
    """Wrap the functions of all points; for good."""
    names = sorted(POINTS, key=lambda name: POINTS[name].place)
    for place, group in itertools.groupby(names, key=lambda name: POINTS[name].place):
        owner, attribute = _owner_of(place)
        setattr(owner, attribute, _watched(getattr(owner, attribute), orders, list(group)))


def _owner_of(place: str) -> tuple[Any, str]:
    module, _, name = place.partition(":")
    *owners, attribute = name.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), attribute


def _watched(function: Callable[..., Any], orders: Orders, names: list[str]) -> Callable[..., Any]:
    def pass_by(moment: Moment, arguments: tuple[Any, ...]) -> None:
        for name in names:
            if POINTS[name].moment == moment and POINTS[name].concerns(*arguments):
                orders.pass_by(name)

    has_soon = any(POINTS[name].moment == "soon" for name in names)

    @functools.wraps(function)
    async def watched_coroutine(*arguments: Any, **named: Any) -> Any:
        pass_by("before", arguments)
        if has_soon:
            asyncio.get_running_loop().call_later(_SOON_S, pass_by, "soon", arguments)
        result = await function(*arguments, **named)
        pass_by("after", arguments)
        return result

    @functools.wraps(function)
    def watched(*arguments: Any, **named: Any) -> Any:
        pass_by("before", arguments)
        for name in names:
            if POINTS[name].moment == "halfway" and orders.is_due(name):
                _do_half(function, *arguments)
                orders.die()
        result = function(*arguments, **named)
        pass_by("after", arguments)
        return result

    return watched_coroutine if inspect.iscoroutinefunction(function) else watched


def _do_half(write: Callable[[int, bytes, int], None], fd: int, data: bytes, position: int) -> None:
    write(fd, data[: len(data) // 2], position)
