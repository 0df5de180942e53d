"""Bounds how long a thread may wait for PostgreSQL, whatever state the server is in.

The server's own timeouts end statements that run too long. They don't help if the server is stopped, or the network
drops its answers: the driver would wait for ever. So a watchdog cuts the connection.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

_TICK_S = 0.25
_MARGIN_S = 1.0
"""Extra time after the server's own timeout, for it to report that."""


@dataclass(slots=True, eq=False)
class _Wait:
    wrapper: BaseDatabaseWrapper
    ends_at: float


class _Watch:
    """One thread per process; it sleeps while nothing is being watched."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._changed = threading.Condition()
        self._pid: int | None = None

    def add(self, wait: _Wait) -> None:
        with self._changed:
            self._waits.add(wait)
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="db-watch", daemon=True).start()
            elif len(self._waits) == 1:
                self._changed.notify()

    def remove(self, wait: _Wait) -> None:
        with self._changed:
            self._waits.discard(wait)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waits:
                    self._changed.wait()
                now = time.monotonic()
                for wait in [wait for wait in self._waits if wait.ends_at <= now]:
                    self._waits.discard(wait)
                    _cut(wait.wrapper)
            time.sleep(_TICK_S)


_watch = _Watch()


def patience_s() -> float:
    """How long a transaction of the gateway may take before the database counts as unavailable; 0 for no bound."""
    timeout_ms: int = settings.LLM_DB_STATEMENT_TIMEOUT_MS
    return timeout_ms / 1000 + _MARGIN_S if timeout_ms else 0.0


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Cuts this thread's connection if the block takes longer; waiting on it then raises OperationalError."""
    wrapper = connections["default"]
    if wrapper.vendor != "postgresql" or not seconds:
        yield
        return
    wait = _Wait(wrapper, time.monotonic() + seconds)
    _watch.add(wait)
    try:
        yield
    finally:
        _watch.remove(wait)


def _cut(wrapper: BaseDatabaseWrapper) -> None:
    """Shut the socket down, which wakes the driver; only the thread that owns a connection may close it."""
    driver = wrapper.connection
    try:
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    except Exception:  # noqa: BLE001  # it ended meanwhile, in one of many ways
        return
