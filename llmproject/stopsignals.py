"""Makes sure that a web worker receives its stop signal at any point of its life, and only once.

By itself it doesn't. From its fork until it sets its own handlers it has those of the main process, which only note
that the main process shall stop. The event loop forgets signals that arrived, but weren't read, when it pauses between
startup and serving. And granian's `WorkerSignal.set` blocks if the previous signal hasn't been read, and with it the
event loop: at the second signal during startup, at the third after that. In each case the worker stays until it is
killed.
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
    """For the main process: children forked from now on get their stop signals once they can receive them."""
    os.register_at_fork(before=_hold, after_in_parent=_release)


def begin_drain_at_stop_signal(begin_drain: Callable[[], None]) -> None:
    """For a worker, before it has an event loop: begin_drain runs in it when the worker is asked to stop.

    The server sends `lifespan.shutdown` only once its last stream has ended, so the drain time counts from the signal.
    """

    def set_loop_signals(loop: AbstractEventLoop) -> WorkerSignal:
        """Called by granian under this name, with the same contract: the returned event is set by a signal."""
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
            # A thread waiting in the kernel continues to wait after the signal.
            signal.siginterrupt(signum, False)  # noqa: FBT003  # it takes no names
        _release()
        return has_arrived

    _signals.set_loop_signals = set_loop_signals


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
