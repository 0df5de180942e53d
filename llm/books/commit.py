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

from django.db import DataError, IntegrityError, connection

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
from llm.books.session import Situation, batch_session
from llm.enums import AccountStatus
from llm.models import Usage


def commit_batch(operations: Sequence[Operation]) -> list[Result]:
    """Write all of them durably; the results stand in the operations' order.

    A refusal is a result. Where the database refuses one operation's data, the batch is halved until only that
    operation fails. Raises OperationalError or InterfaceError when the database is away: then nothing was written, or
    everything was and replaying it changes nothing.
    """
    try:
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
    with batch_session() as session:
        situation = session.read({operation.key_id for operation in opens})
        results, open_rows = _judge(opens, situation)
        close_rows = [statements.close_row(close, now=situation.now, vendor=connection.vendor) for close in closes]
        written = session.write(open_rows, close_rows)
    results.update({id(close): Closed() for close in closes if close.id.hex in written.closed})
    if others := [close for close in closes if close.id.hex not in written.closed]:
        results.update(_compare(others))
    return [results[id(operation)] for operation in operations]


def _judge(opens: Sequence[OpenCall], situation: Situation) -> tuple[dict[int, Result], list[dict[str, Any]]]:
    """What becomes of each open, and the rows of those that may be written."""
    keys = {row[0]: _key_state(row) for row in situation.key_rows}
    results: dict[int, Result] = {}
    rows = []
    for operation in opens:
        key = keys.get(operation.key_id)
        refusal = "unknown" if key is None else key.refusal(operation, situation.now)
        if key is None or refusal is not None:
            results[id(operation)] = Refused(refusal or "unknown")
        elif not _is_current(operation, situation):
            results[id(operation)] = Stale(situation.now, situation.catalog_version)
        else:
            results[id(operation)] = Opened(situation.now)
            rows.append(
                statements.open_row(operation, now=situation.now, time_zone=key.time_zone, vendor=connection.vendor)
            )
    return results, rows


def _is_current(operation: OpenCall, situation: Situation) -> bool:
    if operation.catalog_version != situation.catalog_version:
        return False
    if operation.price_from is not None and situation.now < operation.price_from:
        return False
    return operation.price_until is None or situation.now < operation.price_until


def _key_state(row: tuple[Any, ...]) -> _KeyState:
    return _KeyState(row[1], _moment(row[2]), _moment(row[3]), _names(row[4]), row[5], row[6])


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
