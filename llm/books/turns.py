"""How long the writer's thread is at one batch: behind one that takes too long nobody is kept waiting."""

from __future__ import annotations

import time

import structlog

log = structlog.get_logger("llm.books")

_SLOW_S = 2.0


class TurnWatch:
    """The writer's thread begins and ends its turns; others may ask `is_slow`."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._told_of: float | None = None

    def begin(self) -> None:
        self._began_at = time.monotonic()

    def end(self) -> None:
        self._began_at = None

    def is_slow(self) -> bool:
        """Whether a turn takes too long. Logged once a turn: nothing else would tell why calls are refused."""
        began_at = self._began_at
        if began_at is None or time.monotonic() - began_at <= _SLOW_S:
            return False
        if began_at != self._told_of:
            self._told_of = began_at
            log.warning("the books are slow, so calls are refused", seconds=_SLOW_S)
        return True
