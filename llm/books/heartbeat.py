"""Processes report that they are alive; the reaper takes silent ones for dead."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection

from llm.db.json_rows import moment_text
from llm.ids import boot_id

MISSED_BEATS = 3
"""After this many missed beats, a process is certainly in trouble."""


def beat_interval_s() -> float:
    """Short enough that a few late beats don't make a process count as dead."""
    after: float = settings.LLM_REAP_AFTER_SECONDS
    return min(10.0, after / 6)


def beat() -> None:
    """Record, by the database's clock, that this process is alive. Raises OperationalError if the database is
    unavailable.
    """
    now = moment_text(datetime.now(UTC), "sqlite") if connection.vendor == "sqlite" else None
    moment = "%s" if now else "clock_timestamp()"
    values: list[str | int] = [boot_id().hex, socket.gethostname()[:255], os.getpid(), *((now, now) if now else ())]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO llm_process (id, host, pid, started_at, seen_at) VALUES (%s, %s, %s, {moment}, {moment}) "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, ended_at = NULL",
            values,
        )


def say_goodbye() -> None:
    """Record that the process ends in good order."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE llm_process SET ended_at = seen_at WHERE id = %s", [boot_id().hex])
