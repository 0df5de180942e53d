"""A web worker that is asked to stop hears of it at any moment of its life, and of the first time only.

Left alone, it doesn't. From its fork until it sets handlers of its own it has those of the main process, which only
note that the main process shall stop. The event loop forgets what has arrived, but was not read, when it pauses between
starting up and serving. And granian's `WorkerSignal.set` blocks where the one before has not been read, and the event
loop with it: at the second signal while the worker starts, at the third after that. Each time the worker stays until it
is killed.
"""

from __future__ import annotations

import os
import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable
from types import FrameType

from granian import _signals
from granian._granian import WorkerSignal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def hold_stop_signals_of_children() -> None:
    """For the main process: a child that is forked from now on gets its stop signals once it can hear them."""
    os.register_at_fork(before=_hold, after_in_parent=_release)


def begin_drain_at_stop_signal(begin_drain: Callable[[], None]) -> None:
    """For a worker, before it has an event loop: begin_drain runs there when the worker is asked to stop.

    The server says `lifespan.shutdown` only once its last stream has ended, so its time is counted from the signal.
    """

    def set_loop_signals(loop: AbstractEventLoop) -> WorkerSignal:
        """What granian calls by this name, with the same promise: what it returns is set when a signal has arrived."""
        has_arrived = WorkerSignal()
        is_stopping = False

        def stop() -> None:
            nonlocal is_stopping
            if not is_stopping:
                is_stopping = True
                has_arrived.set()
                begin_drain()

        def on_signal(_signum: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(stop)

        for signum in STOP_SIGNALS:
            signal.signal(signum, on_signal)
            # What a thread waits for in the kernel goes on after the signal.
            signal.siginterrupt(signum, False)  # noqa: FBT003  # it takes no names
        _release()
        return has_arrived

    _signals.set_loop_signals = set_loop_signals


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
