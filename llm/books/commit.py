"""One batch of operations, one transaction: the synchronous core of the books.

Every batch can be replayed blindly: an open inserts or finds its row, a close updates an open row or finds it closed
with the very same values. What a batch decides (is the key good, is the price still in force, does the call fit into
the limits) it decides on what it reads inside its own transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import orjson
from django.db import DataError, IntegrityError, connection

from llm.books import limit_statements, statements
from llm.books.batch import Judgement, holds_of
from llm.books.comparing import compare
from llm.books.operations import CloseCall, Closed, Failed, OpenCall, Opened, Operation, Result
from llm.books.session import BatchSession, Situation, Statement, batch_session
from llm.enums import UsageStatus
from llm.models import Usage


def commit_batch(operations: Sequence[Operation], *, lock_timeout_ms: int = 0) -> list[Result]:
    """Write all of them durably; the results stand in the operations' order.

    A refusal is a result. Where the database refuses one operation's data, the batch is halved until only that
    operation fails. Raises OperationalError or InterfaceError when the database is away, or a lock was not to be had
    within lock_timeout_ms (0: the connection's own bound): then nothing was written, or everything was and replaying
    it changes nothing.
    """
    try:
        return _write(operations, lock_timeout_ms)
    except (DataError, IntegrityError, TypeError, ValueError) as error:
        if len(operations) == 1:
            return [_after_refusal(operations[0], error)]
    middle = len(operations) // 2
    first, second = operations[:middle], operations[middle:]
    return [
        *commit_batch(first, lock_timeout_ms=lock_timeout_ms),
        *commit_batch(second, lock_timeout_ms=lock_timeout_ms),
    ]


def _write(operations: Sequence[Operation], lock_timeout_ms: int) -> list[Result]:
    opens = [operation for operation in operations if isinstance(operation, OpenCall)]
    closes = [operation for operation in operations if isinstance(operation, CloseCall)]
    touched_ids = [close.id.hex for close in closes] + [each.id.hex for each in opens if each.is_stillborn]
    with batch_session() as session:
        situation = session.read({each.key_id for each in opens}, touched_ids, lock_timeout_ms=lock_timeout_ms)
        judgement = Judgement(situation)
        _lock_windows(session, judgement, situation, opens)
        closing = _release(judgement, situation, closes)
        opening = [each for each in opens if judgement.judge(each) and each.id.hex not in situation.touched]
        closing += _release_new(judgement, opening, closes)
        session.write(_statements(judgement, opening, closing))
    results = judgement.results
    results.update({id(close): Closed() for close in closing})
    if others := [close for close in closes if id(close) not in results]:
        results.update(compare(others))
    return [results[id(operation)] for operation in operations]


def _lock_windows(session: BatchSession, judgement: Judgement, situation: Situation, opens: Sequence[OpenCall]) -> None:
    held = {
        window_id
        for status, holds in situation.touched.values()
        if status == UsageStatus.OPEN
        for window_id, _ in holds_of(holds)
    }
    wanted = judgement.wanted_windows(opens)
    if held or wanted:
        judgement.take_windows(session.lock_windows(held, wanted))


def _release(judgement: Judgement, situation: Situation, closes: Sequence[CloseCall]) -> list[CloseCall]:
    """The closes that count: of rows that are open and locked by us, and of each row the first one."""
    closing: dict[UUID, CloseCall] = {}
    for close in closes:
        status, holds = situation.touched.get(close.id.hex, ("", None))
        if status == UsageStatus.OPEN and close.id not in closing:
            closing[close.id] = close
            judgement.release(close, holds_of(holds))
    return list(closing.values())


def _release_new(judgement: Judgement, opens: Sequence[OpenCall], closes: Sequence[CloseCall]) -> list[CloseCall]:
    """The closes of calls that this very batch opens."""
    holds = {each.id: judgement.holds.get(id(each), ()) for each in opens}
    closing: dict[UUID, CloseCall] = {}
    for close in closes:
        if close.id in holds and close.id not in closing:
            closing[close.id] = close
            judgement.release(close, holds[close.id])
    return list(closing.values())


def _statements(judgement: Judgement, opens: Sequence[OpenCall], closes: Sequence[CloseCall]) -> list[Statement]:
    vendor, now = connection.vendor, judgement.now
    open_rows = [
        statements.open_row(
            each,
            holds=judgement.holds.get(id(each), ()),
            now=now,
            time_zone=judgement.time_zone_of(each),
            vendor=vendor,
        )
        for each in opens
    ]
    close_rows = [statements.close_row(close, now=now, vendor=vendor) for close in closes]
    message_rows = judgement.message_rows(moment=statements.moment_text(now, vendor))
    parts = (
        (statements.insert_sql(vendor), open_rows),
        (statements.update_sql(vendor), close_rows),
        (limit_statements.update_windows_sql(vendor), judgement.window_rows()),
        (limit_statements.insert_messages_sql(vendor), message_rows),
    )
    return [(sql, (orjson.dumps(rows).decode(),)) for sql, rows in parts if rows]


def _after_refusal(operation: Operation, error: Exception) -> Result:
    """An open whose row exists was written before, by a commit whose answer never came."""
    if isinstance(operation, OpenCall) and isinstance(error, IntegrityError):
        row = Usage.objects.filter(id=operation.id, request_id=operation.request_id).first()
        if row is not None:
            return Opened(row.opened_at)
    return Failed(type(error).__name__)
