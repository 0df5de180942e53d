"""What anybody can make Django log at will: a warning at most, without a traceback, and only so often.

A wrong host, a broken cookie or form, an unknown path are the caller's fault; as errors they would hide ours, for every
error in the log is to be looked at.
"""

from __future__ import annotations

import logging
import time

_LINES_PER_MINUTE = 20
_MINUTE_S = 60.0
_MAX_CHARACTERS = 300


class StrangersFilter(logging.Filter):
    """For a handler, so that it sees the records of every logger below it."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not _is_of_a_stranger(record):
            return True
        if record.levelno > logging.WARNING:
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        record.exc_info = record.exc_text = record.stack_info = None
        record.msg, record.args = record.getMessage()[:_MAX_CHARACTERS], ()
        return self._has_room("security" if record.name.startswith("django.security") else "request")

    def _has_room(self, kind: str) -> bool:
        began, lines = self._windows.get(kind, (-_MINUTE_S, 0))
        now = time.monotonic()
        if now >= began + _MINUTE_S:
            began, lines = now, 0
        self._windows[kind] = began, lines + 1
        return lines < _LINES_PER_MINUTE


def _is_of_a_stranger(record: logging.LogRecord) -> bool:
    if record.name == "django.request":
        return getattr(record, "status_code", 500) < 500
    return record.name.startswith("django.security")
