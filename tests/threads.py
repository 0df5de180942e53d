"""Threads of tests that ask the database: each has connections of its own, and closes them.

One that is forgotten is closed by the garbage collector, which complains during whatever test happens to run then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

P = ParamSpec("P")
R = TypeVar("R")


class OpenConnections:
    """Those that threads have opened, with the test during which they did."""

    def __init__(self) -> None:
        self.test = ""
        self._opened: list[tuple[BaseDatabaseWrapper, threading.Thread, str]] = []
        connection_created.connect(self._note)

    def close_forgotten(self) -> list[str]:
        """The tests whose threads have ended and left connections open; they are closed now."""
        ended = [each for each in self._opened if not each[1].is_alive()]
        self._opened = [each for each in self._opened if each[1].is_alive()]
        forgotten = [each for each in ended if each[0].connection is not None]
        for wrapper, _thread, _test in forgotten:
            wrapper.inc_thread_sharing()
            wrapper.close()
        return [test for _wrapper, _thread, test in forgotten]

    def _note(self, *, connection: BaseDatabaseWrapper, **_named: object) -> None:
        thread = threading.current_thread()
        if thread is not threading.main_thread():
            self._opened.append((connection, thread, self.test))


async def to_thread(work: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
    """As `asyncio.to_thread`, for work that asks the database."""

    def run() -> R:
        try:
            return work(*args, **named)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)
