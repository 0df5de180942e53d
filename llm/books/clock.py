"""The database's clock: the only one that rows of several hosts can be compared by."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection

from llm.books.statements import BOOKS_LOCK


def database_now() -> datetime:
    """SQLite has no clock of its own: it is the host's."""
    return datetime.now(UTC) if connection.vendor == "sqlite" else _ask("SELECT clock_timestamp()", [])


def lock_books() -> datetime:
    """Share the books with their writers until the transaction ends; returns the database's clock."""
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
