"""Log lines that anyone can cause: at most warnings, without tracebacks, and rate-limited.

A wrong host, a broken cookie or form, an unknown path are the caller's fault; as errors they would hide ours, since
every error in the log must be looked at. One line per kind and minute says how many there were since the last one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from time import monotonic

_INTERVAL_S = 60.0
_MAX_CHARACTERS = 300


class Seldom:
    """One line of each kind per interval, with the number of those left out before it.

    kinds: few, and none that a stranger makes up.
    """

    def __init__(self, interval_s: float = _INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._said: dict[Hashable, float] = {}
        self._left_out: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def left_out(self, kind: Hashable = "") -> int | None:
        """The number to report with a line that is due now; None: none is due, and this one is counted."""
        with self._lock:
            now = monotonic()
            if now < self._said.get(kind, -self._interval_s) + self._interval_s:
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return None
            self._said[kind] = now
            return self._left_out.pop(kind, 0)

    def forget(self) -> None:
        with self._lock:
            self._said.clear()
            self._left_out.clear()


# Each request fails while a database is unavailable; strangers send as many as they like.
told_outages = Seldom(10.0)


class StrangersFilter(logging.Filter):
    """For a handler, so that it sees the records of every logger below it."""

    def __init__(self) -> None:
        super().__init__()
        self._seldom = Seldom()

    def filter(self, record: logging.LogRecord) -> bool:
        if not _is_of_a_stranger(record):
            return True
        if record.levelno > logging.WARNING:
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        record.exc_info = record.exc_text = record.stack_info = None
        record.msg, record.args = record.getMessage()[:_MAX_CHARACTERS], ()
        left_out = self._seldom.left_out((record.name, getattr(record, "status_code", None)))
        record.left_out = left_out
        return left_out is not None


class ExceptionTextFilter(logging.Filter):
    """Replaces an exception's text in a library's line by its class: the text may contain a prompt or a row.

    The formatter describes the exception itself.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_text = None
        if isinstance(record.args, tuple):
            record.args = tuple(_class_of(each) if isinstance(each, BaseException) else each for each in record.args)
        elif record.args and "exc" in record.args:
            # Celery's line on a failed task, which passes the same exception as `data`.
            error = record.exc_info[1] if record.exc_info else None
            record.args = {**record.args, "exc": _class_of(error), "traceback": ""}
            record.__dict__.pop("data", None)
        return True


def _class_of(error: BaseException | None) -> str:
    return "" if error is None else type(error).__name__


def _is_of_a_stranger(record: logging.LogRecord) -> bool:
    if record.name == "django.request":
        return getattr(record, "status_code", 500) < 500
    return record.name.startswith("django.security")
