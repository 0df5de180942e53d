"""When and why a call is stopped: the only thing that ends one early."""

from __future__ import annotations

import asyncio
import math
import time
from enum import Enum
from types import TracebackType
from typing import Self

from llm.calls.context import Bounds

_REST_SECONDS = 1.0
"""Time for what may follow the answer."""


class StopReason(Enum):
    FIRST_BYTE = "no data arrived in time"
    IDLE = "no more data arrived in time"
    TOTAL = "it exceeded the total time limit"
    HANG_UP = "the caller disconnected"
    SHUTDOWN = "the process is shutting down"
    ANSWERED = "the reply was complete, but the stream stayed open"


class Stopped(Exception):
    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Deadlines:
    """The deadlines of one call. The task that enters them is cancelled at the first one, and leaves with `Stopped`.

    asked: why the call was asked to end, unless another deadline comes first.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.asked: StopReason | None = None
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._total_at = self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._progress_at = 0.0
        self._later: tuple[float, StopReason] | None = None
        self._stopped_for: StopReason | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._task = task = asyncio.current_task()
        self._cancelling = 0 if task is None else task.cancelling()
        now, bounds = self._loop.time(), self._bounds
        self._total_at = now + bounds.total_s
        if bounds.first_byte_s < bounds.total_s:
            self._set(now + bounds.first_byte_s, StopReason.FIRST_BYTE)
        else:
            self._set(self._total_at, StopReason.TOTAL)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.lift()
        task, self._task = self._task, None
        reason = self._stopped_for
        if task is None or reason is None:
            return
        # Like asyncio.timeout: if the task was cancelled by others as well, it stays cancelled.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Stopped(reason) from error

    def stop(self, reason: StopReason, *, within_s: float) -> None:
        """End the call after that many seconds at most. No effect once it is over."""
        if self._is_over:
            return
        when = self._loop.time() + within_s
        if when >= self._at:
            # The first byte may still arrive in time.
            self._later = self._later or (when, reason)
            return
        self.asked = reason
        if self._task is not None:
            self._set(when, reason)

    def note_first_byte(self) -> None:
        """From now on the idle and total times apply, unless an earlier end was set."""
        self.note_progress()
        self._idle_timer = self._loop.call_later(self._bounds.idle_s, self._check_idle)
        if self.asked is not None:
            return
        self._set(self._total_at, StopReason.TOTAL)
        if self._later is not None and self._later[0] < self._total_at:
            when, self.asked = self._later
            self._set(when, self.asked)

    def note_progress(self) -> None:
        """The upstream has sent something that counts as progress."""
        self._progress_at = time.monotonic()

    def lift(self) -> None:
        """The call is over: from here on the books decide how long it takes."""
        self._is_over = True
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()

    def limit_rest(self) -> None:
        """The caller has the answer; the rest only matters to the connection."""
        if self._stopped_for is None:
            self._set(self._loop.time() + _REST_SECONDS, StopReason.ANSWERED)

    def _set(self, when: float, reason: StopReason) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = when
        self._timer = self._loop.call_at(when, self._stop, reason)

    def _check_idle(self) -> None:
        """Called when the idle time may be over; sets no timer per chunk, only one per idle period."""
        left = self._bounds.idle_s - (time.monotonic() - self._progress_at)
        if left > 0:
            self._idle_timer = self._loop.call_later(left, self._check_idle)
        else:
            self._stop(self.asked or StopReason.IDLE)

    def _stop(self, reason: StopReason) -> None:
        self.lift()
        self._stopped_for = reason
        if self._task is not None:
            self._task.cancel()
