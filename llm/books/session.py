"""How a batch talks to the database: one trip to begin and read, one to write and commit.

Trips are most of what a small batch costs, so on PostgreSQL the statements of each trip are sent together. Inside a
transaction of somebody else (a Celery task's, a test's), and on SQLite, where a trip is a function call, the same
statements go one by one in Django's own transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from llm.books import statements


@dataclass(frozen=True, slots=True)
class Situation:
    """What a batch finds. now: the database's clock, read under the books' lock. key_rows: see `statements.KEYS`."""

    now: datetime
    catalog_version: int
    key_rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Written:
    """Hex ids of the rows that were new, and of those that were open and are closed now."""

    opened: Collection[str]
    closed: Collection[str]


class BatchSession:
    """One transaction. `read` comes first; `write` commits."""

    def __init__(self, cursor: CursorWrapper, *, is_joined: bool) -> None:
        self._cursor = cursor
        self._is_joined = is_joined

    def read(self, key_ids: Collection[int]) -> Situation:
        if connection.vendor == "sqlite":
            return self._read_sqlite(key_ids)
        begin = "BEGIN; " if self._is_joined else ""
        self._cursor.execute(begin + statements.READ_POSTGRESQL, [statements.BOOKS_LOCK, list(key_ids)])
        if self._is_joined:
            self._cursor.nextset()
        rows = self._cursor.fetchall()
        return Situation(rows[0][0], rows[0][1], [row[2:] for row in rows if row[2] is not None])

    def write(self, open_rows: Sequence[dict[str, Any]], close_rows: Sequence[dict[str, Any]]) -> Written:
        parts = []
        if open_rows:
            parts.append((statements.insert_sql(connection.vendor), orjson.dumps(open_rows).decode()))
        if close_rows:
            parts.append((statements.update_sql(connection.vendor), orjson.dumps(close_rows).decode()))
        ids = self._write_joined(parts) if self._is_joined else self._write_one_by_one(parts)
        return Written(opened=ids.pop(0) if open_rows else (), closed=ids.pop(0) if close_rows else ())

    def _write_joined(self, parts: Sequence[tuple[str, str]]) -> list[set[str]]:
        sql = "; ".join((*(text for text, _ in parts), "COMMIT"))
        self._cursor.execute(sql, [document for _, document in parts])
        ids = []
        for _ in parts:
            ids.append(self._fetch_ids())
            self._cursor.nextset()
        return ids

    def _write_one_by_one(self, parts: Sequence[tuple[str, str]]) -> list[set[str]]:
        ids = []
        for sql, document in parts:
            self._cursor.execute(sql, [document])
            ids.append(self._fetch_ids())
        return ids

    def _fetch_ids(self) -> set[str]:
        return {row[0] if isinstance(row[0], str) else row[0].hex for row in self._cursor.fetchall()}

    def _read_sqlite(self, key_ids: Collection[int]) -> Situation:
        """SQLite has one writer at a time: BEGIN IMMEDIATE is the lock, and its host's clock is the database's."""
        self._cursor.execute("SELECT version FROM llm_catalogversion WHERE id = 1")
        row = self._cursor.fetchone()
        now = datetime.now(UTC)
        self._cursor.execute(statements.READ_KEYS_SQLITE, [orjson.dumps(list(key_ids)).decode()])
        return Situation(now, row[0] if row else 0, self._cursor.fetchall())


@contextmanager
def batch_session() -> Iterator[BatchSession]:
    """Leaves nothing written where the block raises."""
    if connection.vendor == "sqlite" or connection.in_atomic_block:
        with transaction.atomic(), connection.cursor() as cursor:
            yield BatchSession(cursor, is_joined=False)
        return
    with connection.cursor() as cursor:
        try:
            yield BatchSession(cursor, is_joined=True)
        except BaseException:
            _roll_back(cursor)
            raise


def _roll_back(cursor: CursorWrapper) -> None:
    """A connection on which that fails is broken: the next batch must not find a transaction half way."""
    try:
        cursor.execute("ROLLBACK")
    except Exception:  # noqa: BLE001  # the first error is the one that is told
        connection.close()
