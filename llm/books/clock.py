"""The database's clock: the only one by which rows of several hosts can be compared."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.db import OperationalError, connection, transaction

from llm.books.statements import BOOKS_LOCK


def database_now() -> datetime:
    """SQLite has no clock of its own: it uses the host's."""
    return datetime.now(UTC) if connection.vendor == "sqlite" else _ask("SELECT clock_timestamp()", [])


def lock_books() -> datetime:
    """Share the books' lock with the writers until the transaction ends; returns the database's clock."""
    if connection.vendor == "sqlite":
        return datetime.now(UTC)
    return _ask(
        "WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(%s)) SELECT clock_timestamp() FROM held",
        [BOOKS_LOCK],
    )


def _ask(sql: str, parameters: list[int]) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        now: datetime = cursor.fetchone()[0]
    return now


WAIT_MS = 250
"""How long each attempt waits for the lock: every call of the gateway queues behind it."""
TRIES = 40
PAUSE_S = 0.25


def take_cutoff() -> datetime:
    """Raises OperationalError if the books' lock was held for more than ten seconds."""
    for _ in range(TRIES - 1):
        try:
            return _take_cutoff()
        except OperationalError:
            time.sleep(PAUSE_S)
    return _take_cutoff()


def _take_cutoff() -> datetime:
    """Writers share the books' lock before they read the clock; on SQLite, beginning a transaction takes it."""
    with transaction.atomic(durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {WAIT_MS}")
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [BOOKS_LOCK])
        return database_now()
