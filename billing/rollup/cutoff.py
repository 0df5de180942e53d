"""A moment of the database's clock that parts the books: all up to it is committed, all later is stamped later."""

from __future__ import annotations

import time
from datetime import datetime

from django.db import OperationalError, connection, transaction

from llm.books.clock import database_now
from llm.books.statements import BOOKS_LOCK

WAIT_MS = 250
"""So long is the lock waited for at a time: behind us in the queue, every call of the gateway waits too."""
TRIES = 40
PAUSE_S = 0.25


def take_cutoff() -> datetime:
    """Raises OperationalError where somebody has held the books' lock for ten seconds and more."""
    for _ in range(TRIES - 1):
        try:
            return _take_cutoff()
        except OperationalError:
            time.sleep(PAUSE_S)
    return _take_cutoff()


def _take_cutoff() -> datetime:
    """Writers share the books' lock before they read the clock; on SQLite to begin is to lock."""
    with transaction.atomic(durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {WAIT_MS}")
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [BOOKS_LOCK])
        return database_now()
