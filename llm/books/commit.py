"""One batch of operations, one transaction: the synchronous core of the books.

Every batch can be replayed blindly: an open inserts or finds its row, a close updates an open row or finds it closed
with the very same values. What a batch decides (is the key good, is the price still in force) it decides on what it
reads inside its own transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import DataError, IntegrityError, connection, transaction
from django.db.backends.utils import CursorWrapper

from llm.books import statements
from llm.books.operations import (
    CloseCall,
    Closed,
    Conflict,
    Failed,
    OpenCall,
    Opened,
    Operation,
    Refused,
    Result,
    Stale,
)
from llm.enums import AccountStatus
from llm.models import Usage


def commit_batch(operations: Sequence[Operation]) -> list[Result]:
    """Write all of them durably; the results stand in the operations' order.

    A refusal is a result. Where the database refuses one operation's data, the batch is halved until only that
    operation fails. Raises OperationalError or InterfaceError when the database is away: then nothing was written, or
    everything was and replaying it changes nothing.
    """
    try:
        with transaction.atomic():
            return _write(operations)
    except (DataError, IntegrityError, TypeError, ValueError) as error:
        if len(operations) == 1:
            return [Failed(type(error).__name__)]
    middle = len(operations) // 2
    return commit_batch(operations[:middle]) + commit_batch(operations[middle:])


@dataclass(frozen=True, slots=True)
class _KeyState:
    account_id: int
    revoked_at: datetime | None
    expires_at: datetime | None
    allowed_models: Sequence[str]
    account_status: str
    time_zone: str

    def refusal(self, operation: OpenCall, now: datetime) -> str | None:
        if self.account_id != operation.account_id:
            return "unknown"
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        if self.account_status != AccountStatus.ACTIVE:
            return "account"
        return "model" if self.allowed_models and operation.model not in self.allowed_models else None


def _write(operations: Sequence[Operation]) -> list[Result]:
    opens = [operation for operation in operations if isinstance(operation, OpenCall)]
    closes = [operation for operation in operations if isinstance(operation, CloseCall)]
    with connection.cursor() as cursor:
        now, catalog_version = _lock_and_read_clock(cursor)
        results: dict[int, Result] = {}
        results.update(_open_calls(cursor, opens, now=now, catalog_version=catalog_version))
        results.update(_close_calls(cursor, closes, now=now))
    return [results[id(operation)] for operation in operations]


def _lock_and_read_clock(cursor: CursorWrapper) -> tuple[datetime, int]:
    """The database's clock, read under the books' lock, and the catalog's version.

    SQLite has one writer at a time: BEGIN IMMEDIATE is the lock, and its host's clock is the database's.
    """
    if connection.vendor == "sqlite":
        cursor.execute("SELECT version FROM llm_catalogversion WHERE id = 1")
        row = cursor.fetchone()
        return datetime.now(UTC), row[0] if row else 0
    cursor.execute(
        "WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(%s)) "
        "SELECT clock_timestamp(), coalesce((SELECT version FROM llm_catalogversion WHERE id = 1), 0) FROM held",
        [statements.BOOKS_LOCK],
    )
    now, version = cursor.fetchone()
    return now, version


def _open_calls(
    cursor: CursorWrapper, opens: Sequence[OpenCall], *, now: datetime, catalog_version: int
) -> dict[int, Result]:
    if not opens:
        return {}
    keys = _read_keys(cursor, {operation.key_id for operation in opens})
    results: dict[int, Result] = {}
    rows = []
    for operation in opens:
        key = keys.get(operation.key_id)
        refusal = "unknown" if key is None else key.refusal(operation, now)
        if refusal is not None:
            results[id(operation)] = Refused(refusal)
        elif not _is_current(operation, now=now, catalog_version=catalog_version):
            results[id(operation)] = Stale(now, catalog_version)
        elif key is not None:
            results[id(operation)] = Opened(now)
            rows.append(statements.open_row(operation, now=now, time_zone=key.time_zone, vendor=connection.vendor))
    if rows:
        statements.insert_open_rows(cursor, rows)
    return results


def _is_current(operation: OpenCall, *, now: datetime, catalog_version: int) -> bool:
    if operation.catalog_version != catalog_version:
        return False
    if operation.price_from is not None and now < operation.price_from:
        return False
    return operation.price_until is None or now < operation.price_until


def _read_keys(cursor: CursorWrapper, key_ids: set[int]) -> dict[int, _KeyState]:
    ids = sorted(key_ids)
    cursor.execute(
        "SELECT k.id, k.account_id, k.revoked_at, k.expires_at, k.allowed_models, a.status, a.time_zone "  # noqa: S608
        "FROM llm_apikey k JOIN llm_account a ON a.id = k.account_id "
        f"WHERE k.id IN ({statements.placeholders(ids)})",
        ids,
    )
    return {
        row[0]: _KeyState(row[1], _moment(row[2]), _moment(row[3]), _names(row[4]), row[5], row[6])
        for row in cursor.fetchall()
    }


def _close_calls(cursor: CursorWrapper, closes: Sequence[CloseCall], *, now: datetime) -> dict[int, Result]:
    if not closes:
        return {}
    rows = [statements.close_row(operation, now=now, vendor=connection.vendor) for operation in closes]
    closed = statements.update_closed_rows(cursor, rows)
    others = [operation for operation in closes if operation.id.hex not in closed]
    results: dict[int, Result] = {id(operation): Closed() for operation in closes if operation.id.hex in closed}
    if others:
        results.update(_compare(others))
    return results


def _compare(closes: Sequence[CloseCall]) -> dict[int, Result]:
    """What became of closes whose row was not open: the same again is nothing new, another is a conflict."""
    rows = Usage.objects.in_bulk([operation.id for operation in closes])
    results: dict[int, Result] = {}
    for operation in closes:
        row = rows.get(operation.id)
        if row is None:
            results[id(operation)] = Conflict("this call was never opened")
        elif _values_of(row) == _plain(statements.close_values(operation)):
            results[id(operation)] = Closed(is_new=False)
        else:
            results[id(operation)] = Conflict(f"this call is {row.status} with other figures")
    return results


def _values_of(row: Usage) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in statements.CLOSE_COLUMNS}
    values["cost"] = None if row.cost is None else int(row.cost.scaleb(12))
    return _plain(values)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]  # an object comes back as one


def _moment(value: datetime | str | None) -> datetime | None:
    """A timestamp as raw SQL returns it: aware on PostgreSQL, naive UTC (maybe as text) on SQLite."""
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _names(value: object) -> Sequence[str]:
    names = json.loads(value) if isinstance(value, str) else value
    return names if isinstance(names, list) else []
