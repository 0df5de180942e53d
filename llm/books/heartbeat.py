"""Processes report that they are alive; the reaper takes silent ones for dead."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection

from llm.db.json_rows import moment_text
from llm.ids import boot_id
from llm.types import clean_text

MISSED_BEATS = 3
"""After this many missed beats, a process is certainly in trouble."""
MAX_SKIPPED_TOLD = 20
_skipped_targets = ""


def beat_interval_s() -> float:
    """Short enough that a few late beats don't make a process count as dead."""
    after: float = settings.LLM_REAP_AFTER_SECONDS
    return min(10.0, after / 6)


def note_skipped_targets(names: Iterable[str]) -> None:
    """What this process skips from now on; its next beat tells it. Names may be of a caller's making."""
    global _skipped_targets  # of this process, as its boot id is
    _skipped_targets = "\n".join(clean_text(name, limit=250) for name in sorted(names)[:MAX_SKIPPED_TOLD])


def beat() -> None:
    """Record, by the database's clock, that this process is alive. Raises OperationalError if the database is
    unavailable.
    """
    now = moment_text(datetime.now(UTC), "sqlite") if connection.vendor == "sqlite" else None
    moment = "%s" if now else "clock_timestamp()"
    clock = (now, now) if now else ()
    values: list[str | int] = [boot_id().hex, socket.gethostname()[:255], os.getpid(), *clock, _skipped_targets]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO llm_process (id, host, pid, started_at, seen_at, skipped_targets) "  # noqa: S608
            f"VALUES (%s, %s, %s, {moment}, {moment}, %s) ON CONFLICT (id) DO UPDATE SET "
            "seen_at = excluded.seen_at, ended_at = NULL, skipped_targets = excluded.skipped_targets",
            values,
        )


def say_goodbye() -> None:
    """Record that the process ends in good order."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE llm_process SET ended_at = seen_at WHERE id = %s", [boot_id().hex])
