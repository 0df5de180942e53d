"""How a batch talks to the database: in few round trips, each with several statements.

Round trips are most of a small batch's cost, so on PostgreSQL the statements of each trip are sent together: one to
begin and read, one to lock windows (only if limits apply that weren't foreseen), one to write and commit. Inside
another transaction (a Celery task's, a test's), and on SQLite, where a trip is a function call, the same statements run
one by one in Django's own transaction.

Locks are taken in one order everywhere: the books' advisory lock, open calls by id, idempotency keys, the naming of end
users by key, windows by id.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from llm.books import claims as claim_statements
from llm.books import statements
from llm.books.batches.foresight import WindowKey
from llm.books.claims import ClaimKey
from llm.db import json_rows
from llm.db.json_rows import Row, Statement
from llm.db.prepared import prepared_statements
from llm.digests import OpenedFacts
from llm.limits import sql as limit_statements
from llm.limits.end_user_windows import EndUserNeed, FoundEndUser

# EXECUTE takes its snapshot before it waits for a table: after a migration that rewrote the table meanwhile, it would
# find the table empty. This waits before there is a snapshot.
_LOCK_TABLES = f"LOCK TABLE {', '.join(statements.TABLES)} IN ACCESS SHARE MODE"
_LOCK_TABLES_AND_CLAIMS = f"LOCK TABLE {', '.join((*statements.TABLES, claim_statements.TABLE))} IN ACCESS SHARE MODE"


@dataclass(frozen=True, slots=True)
class TouchedRow:
    """An open call as found by a batch. holds: as raw SQL returns them, a list or its JSON text."""

    holds: Any
    opened: OpenedFacts

    @classmethod
    def of(cls, row: Row, vendor: str) -> TouchedRow:
        """SQLite stores ids as hex digits, moments without a zone, and JSON as text; Django does so with JSON on
        PostgreSQL too.
        """
        opened = OpenedFacts._make(row[1:])
        tags: Any = opened.tags
        if isinstance(tags, str):
            opened = opened._replace(tags=orjson.loads(tags))
        if vendor == "sqlite":
            opened = opened._replace(id=UUID(row[1]), request_id=UUID(row[2]), opened_at=moment_of(opened.opened_at))
        return cls(row[0], opened)


@dataclass(frozen=True, slots=True)
class HeldClaim:
    """A claimed idempotency key. is_in_flight: whether a call of the claiming request is open."""

    content_hash: str
    call_id: UUID
    claimed_at: datetime
    is_in_flight: bool

    @classmethod
    def of(cls, row: Row) -> HeldClaim:
        call_id = row[3] if isinstance(row[3], UUID) else UUID(row[3])
        return cls(row[2], call_id, moment_of(row[4]), bool(row[5]))


@dataclass(frozen=True, slots=True)
class BatchSnapshot:
    """What a batch reads. now: the database's clock, read under the books' lock.

    key_rows: see `statements.KEYS`. limit_rows: see `limit_statements.LIMIT_COLUMNS`. touched: those of the
    requested calls that are open, by id, locked. claims: existing claims of the requested idempotency keys, which are
    locked.
    """

    now: datetime
    catalog_version: int
    key_rows: Sequence[Row]
    limit_rows: Sequence[Row]
    touched: Mapping[UUID, TouchedRow]
    window_rows: Sequence[Row] | None
    claims: Mapping[ClaimKey, HeldClaim]


class BatchSession:
    """One transaction. `read` comes first; `write` commits."""

    def __init__(self, cursor: CursorWrapper, *, is_joined: bool) -> None:
        self._cursor = cursor
        self._is_joined = is_joined
        self._vendor = connection.vendor
        self._prepared = prepared_statements() if is_joined else None

    def read(
        self,
        key_ids: Collection[int],
        touched_ids: Sequence[str],
        *,
        foreseen: Collection[WindowKey] | None = None,
        claimed: Collection[ClaimKey] | None = None,
        lock_timeout_ms: int = 0,
    ) -> BatchSnapshot:
        """lock_timeout_ms: how long this transaction waits for a lock; 0 leaves it to the connection.

        foreseen: windows to lock in this same trip, together with those that the touched rows hold. If it is None, or
        trips aren't joined, no windows are locked yet.

        claimed: idempotency keys that the batch needs; None if it has nothing to do with them.
        """
        statement_list: list[Statement] = []
        if self._vendor == "sqlite":
            statement_list.append(("SELECT coalesce((SELECT version FROM llm_catalogversion WHERE id = 1), 0)", ()))
            if key_ids:
                statement_list.append((statements.READ_KEYS_SQLITE, (self._ids(key_ids),)))
        else:
            statement_list.append((statements.READ_POSTGRESQL, (self._ids(key_ids),)))
        if key_ids:
            statement_list.append((limit_statements.limits_sql(self._vendor), (self._ids(key_ids),)))
        if touched_ids:
            statement_list.append((statements.rows_touched_sql(self._vendor), (self._ids(touched_ids),)))
        if claimed:
            if self._vendor != "sqlite":
                numbers = claim_statements.lock_numbers(claimed)
                statement_list.append((claim_statements.LOCK_POSTGRESQL, (self._ids(numbers),)))
            statement_list.append(claim_statements.read_claims(claimed, self._vendor))
        has_foreseen = foreseen is not None and self._is_joined
        if foreseen is not None and has_foreseen:
            statement_list.append(self._lock_foreseen(foreseen, touched_ids))
        start = f"BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms:d}; " if lock_timeout_ms else "BEGIN; "
        if self._prepared is not None:
            start += f"{_LOCK_TABLES if claimed is None else _LOCK_TABLES_AND_CLAIMS}; "
        found = self._run(statement_list, before=start, skip=start.count(";"))
        window_rows = found.pop() if has_foreseen else None
        claims = {(row[0], row[1]): HeldClaim.of(row) for row in found.pop()} if claimed else {}
        return self._situation(found, window_rows, claims, has_keys=bool(key_ids), has_touched=bool(touched_ids))

    def _lock_foreseen(self, foreseen: Collection[WindowKey], touched_ids: Sequence[str]) -> Statement:
        keys = self._window_keys(foreseen)
        sql = limit_statements.windows_of_calls_sql(has_end_users=len(keys) > 1)
        return sql, (self._ids(touched_ids), *keys)

    def find_end_users(self, needs: Sequence[EndUserNeed], *, limit: int) -> dict[EndUserNeed, FoundEndUser]:
        """What there is of windows of theirs; until the transaction ends, nobody else makes new ones for these keys."""
        batch: list[Statement] = []
        if self._vendor != "sqlite":
            numbers = sorted({zlib.crc32(str(need.key_id).encode()) - 2**31 for need in needs})
            batch.append((limit_statements.LOCK_NAMES_POSTGRESQL, (self._ids(numbers),)))
        rows = [
            {"number": number, **self._end_user_row((need.limit_id, need.starts_at, need.own_label), need.key_id)}
            for number, need in enumerate(needs)
        ]
        batch.append((limit_statements.named_sql(self._vendor, limit=limit), (orjson.dumps(rows).decode(),)))
        return {needs[number]: FoundEndUser(bool(has_own), named) for number, has_own, named in self._run(batch)[-1]}

    def lock_windows(
        self,
        ids: Collection[int],
        wanted: Collection[WindowKey],
        *,
        named_by: Mapping[WindowKey, int] = MappingProxyType({}),
    ) -> Sequence[Row]:
        """Windows by id and by key, locked by id. Those of the wanted ones that don't exist are made before.

        named_by: the key that has named an end user, of windows of one.

        Before: who waits for another's new window has no window locked yet, so nobody waits in a circle.
        """
        keys = self._window_keys(wanted, named_by)
        sql = limit_statements.windows_sql(self._vendor, has_end_users=len(keys) > 1)
        batch: list[Statement] = [(sql, (self._ids(ids), *keys))]
        if len(keys) > 1:
            batch.insert(0, (limit_statements.insert_end_user_windows_sql(self._vendor), (keys[1],)))
        if wanted:
            batch.insert(0, (limit_statements.insert_windows_sql(self._vendor), (keys[0],)))
        return self._run(batch)[-1]

    def write(self, writes: Sequence[Statement]) -> None:
        if not self._is_joined:
            self._run(writes)
            return
        sql = "; ".join((*self._texts(writes), "COMMIT"))
        self._cursor.execute(sql, [parameter for _, parameters in writes for parameter in parameters])

    def _situation(
        self,
        found: list[list[Row]],
        window_rows: Sequence[Row] | None,
        claims: Mapping[ClaimKey, HeldClaim],
        *,
        has_keys: bool,
        has_touched: bool,
    ) -> BatchSnapshot:
        if self._vendor == "sqlite":
            # One writer at a time: BEGIN IMMEDIATE is the lock, and the host's clock is the database's.
            now, version = datetime.now(UTC), found.pop(0)[0][0]
            key_rows = found.pop(0) if has_keys else []
        else:
            first = found.pop(0)
            now, version = first[0][0], first[0][1]
            key_rows = [row[2:] for row in first if row[2] is not None]
        limit_rows = found.pop(0) if has_keys else []
        touched = [TouchedRow.of(row, self._vendor) for row in found.pop(0)] if has_touched else ()
        touched_by_id = {row.opened.id: row for row in touched}
        return BatchSnapshot(now, version, key_rows, limit_rows, touched_by_id, window_rows, claims)

    def _run(self, batch: Sequence[Statement], *, before: str = "", skip: int = 0) -> list[list[Row]]:
        """The rows of each statement. before: statements that go first in the same trip, as many as `skip` says."""
        if not self._is_joined:
            return [self._run_one(*statement) for statement in batch]
        sql = before + "; ".join(self._texts(batch))
        self._cursor.execute(sql, [parameter for _, parameters in batch for parameter in parameters])
        for _ in range(skip):
            self._cursor.nextset()
        results = []
        for text, _ in batch:
            results.append(self._fetch(text))
            self._cursor.nextset()
        return results

    def _texts(self, batch: Sequence[Statement]) -> list[str]:
        """The text to execute: for prepared statements, only their names."""
        if self._prepared is None:
            return [text for text, _ in batch]
        return [self._prepared.call(self._cursor, text) for text, _ in batch]

    def _run_one(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        self._cursor.execute(sql, list(parameters))
        return self._fetch(sql)

    def _fetch(self, sql: str) -> list[Row]:
        """The rows of a statement. The cursor isn't asked whether there are any: it would describe each column for
        that.
        """
        return list(self._cursor.fetchall()) if sql.startswith(("SELECT", "WITH")) else []

    def _ids(self, ids: Iterable[Any]) -> str:
        return json_rows.id_list(ids, self._vendor)

    def _window_keys(
        self, keys: Collection[WindowKey], named_by: Mapping[WindowKey, int] = MappingProxyType({})
    ) -> Sequence[str]:
        """A document of those of limits as a whole, and one of those of end users, if there are any."""
        rows = [self._start_row(key) for key in keys if len(key) == 2]
        of_end_users = [self._end_user_row(key, named_by.get(key)) for key in keys if len(key) == 3]
        return [orjson.dumps(each).decode() for each in ([rows, of_end_users] if of_end_users else [rows])]

    def _start_row(self, key: WindowKey) -> dict[str, Any]:
        """PostgreSQL takes a moment as JSON has it; SQLite's is text, as Django stores it."""
        is_text = self._vendor == "sqlite"
        return {"limit_id": key[0], "starts_at": json_rows.moment_text(key[1], "sqlite") if is_text else key[1]}

    def _end_user_row(self, key: WindowKey, key_id: int | None) -> dict[str, Any]:
        return {**self._start_row(key), "end_user": key[-1], "key_id": key_id}


@contextmanager
def batch_session() -> Iterator[BatchSession]:
    """Writes nothing if the block raises."""
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


def moment_of(value: datetime | str) -> datetime:
    """A timestamp as raw SQL returns it: aware on PostgreSQL, naive UTC (maybe as text) on SQLite."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _roll_back(cursor: CursorWrapper) -> None:
    """A connection whose rollback fails is broken: the next batch must not get a half-finished transaction."""
    try:
        cursor.execute("ROLLBACK")
    except Exception:  # noqa: BLE001  # the first error is the one that is told
        connection.close()
