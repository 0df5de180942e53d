"""One batch of operations, one transaction: the synchronous core of the books.

Every batch can be replayed blindly: an open inserts its row or finds it, a close moves an open call to the closed ones
or finds it there with exactly the same values. What a batch decides (is the key valid, is the price still in force,
does the call fit into the limits) is based on what it reads in its own transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import orjson
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection

from llm import models
from llm.books import statements
from llm.books.batches.decisions import BatchDecisions, holds_of
from llm.books.batches.foresight import UnforeseenWindowsError, WindowForesight, WindowKey
from llm.books.batches.session import BatchSession, BatchSnapshot, batch_session
from llm.books.claims import claim_statements, key_of
from llm.books.comparing import compare
from llm.books.operations import CloseCall, Closed, Failed, OpenCall, Opened, Operation, Result
from llm.db.json_rows import Statement, id_list
from llm.digests import OpenedFacts
from llm.limits.end_user_windows import choose_labels
from llm.limits.rows import window_statements

_foresight = WindowForesight()

Closing = tuple[CloseCall, OpenedFacts]
"""A close that takes effect, and what its row was opened with: the row's digest covers both."""


def commit_batch(operations: Sequence[Operation], *, lock_timeout_ms: int = 0) -> list[Result]:
    """Write all of them durably; the results are in the order of the operations.

    A refusal is a result. If the database rejects one operation's data, the batch is halved until only that operation
    fails.
    Raises OperationalError or InterfaceError if the database is unavailable, or a lock wasn't granted within
    lock_timeout_ms (0: the connection's own bound): then nothing was written, or everything was and replaying it
    changes nothing.
    """
    try:
        results = _write(operations, lock_timeout_ms)
    except (DataError, IntegrityError) as error:
        return _commit_apart(operations, error, lock_timeout_ms)
    except (DatabaseError, InterfaceError):
        raise
    except Exception as error:  # noqa: BLE001  # one operation of which no row can be made must not hold up the others
        return _commit_apart(operations, error, lock_timeout_ms)
    others = [each for each in operations if isinstance(each, CloseCall) and id(each) not in results]
    if others:
        results.update(compare(others))
    return [results[id(operation)] for operation in operations]


def _commit_apart(operations: Sequence[Operation], error: Exception, lock_timeout_ms: int) -> list[Result]:
    if len(operations) == 1:
        return [_after_refusal(operations[0], error)]
    middle = len(operations) // 2
    return [
        *commit_batch(operations[:middle], lock_timeout_ms=lock_timeout_ms),
        *commit_batch(operations[middle:], lock_timeout_ms=lock_timeout_ms),
    ]


def _write(operations: Sequence[Operation], lock_timeout_ms: int) -> dict[int, Result]:
    """Results by id() of the operation, except for closes whose row wasn't open."""
    opens = [operation for operation in operations if isinstance(operation, OpenCall)]
    closes = [operation for operation in operations if isinstance(operation, CloseCall)]
    foreseen = _foresight.windows_of(opens, closes)
    if foreseen is not None:
        with suppress(UnforeseenWindowsError):
            return _write_once(opens, closes, foreseen, lock_timeout_ms)
    return _write_once(opens, closes, None, lock_timeout_ms)


def _write_once(
    opens: Sequence[OpenCall], closes: Sequence[CloseCall], foreseen: set[WindowKey] | None, lock_timeout_ms: int
) -> dict[int, Result]:
    """foreseen: see `BatchSession.read`. Raises UnforeseenWindowsError if more windows are needed."""
    touched_ids = [close.id.hex for close in closes] + [each.id.hex for each in opens if each.is_stillborn]
    with batch_session() as session:
        key_ids = {each.key_id for each in opens}
        claimed = {key for each in opens if (key := key_of(each)) is not None}
        released = {close.id for close in closes if close.releases_claim}
        situation = session.read(
            key_ids,
            touched_ids,
            foreseen=foreseen,
            claimed=claimed if claimed or released else None,
            lock_timeout_ms=lock_timeout_ms,
        )
        judgement = BatchDecisions(situation, released=released)
        _place_end_users(session, judgement, situation, opens)
        wanted = judgement.wanted_windows(opens)
        keys = {each.key for windows in wanted.values() for each in windows}
        _lock_windows(session, judgement, situation, keys)
        closing = _release(judgement, situation, closes)
        opening = [each for each in opens if judgement.judge(each) and each.id not in situation.touched]
        closing += _release_new(judgement, opening, closes)
        session.write(_statements(judgement, opening, closing))
    _foresight.learn(opens, wanted, judgement.end_user_windows)
    return {**judgement.results, **{id(close): Closed() for close, _ in closing}}


def _place_end_users(
    session: BatchSession, judgement: BatchDecisions, situation: BatchSnapshot, opens: Sequence[OpenCall]
) -> None:
    """Which windows they have, where limits are for each of them: as foreseen, else asked in a trip of its own."""
    needs = judgement.end_user_needs(opens)
    if not needs:
        return
    if situation.window_rows is None:
        limit = settings.LLM_LIMIT_END_USERS
        judgement.place_end_users(choose_labels(needs, session.find_end_users(needs, limit=limit), limit=limit))
        return
    try:
        judgement.place_end_users(_foresight.labels_of(opens))
    except KeyError as error:
        raise UnforeseenWindowsError from error


def _lock_windows(
    session: BatchSession, judgement: BatchDecisions, situation: BatchSnapshot, wanted: set[WindowKey]
) -> None:
    """Those that are wanted, and those that the closes hold; nothing more where some were locked already."""
    wanted |= {each.key for each in judgement.end_user_windows.values()}
    if situation.window_rows is not None:
        judgement.take_windows(situation.window_rows)
        if judgement.missing_windows(wanted):
            raise UnforeseenWindowsError
        return
    held = {window_id for row in situation.touched.values() for window_id, _ in holds_of(row.holds)}
    if held or wanted:
        judgement.take_windows(session.lock_windows(held, wanted, named_by=judgement.named_by()))


def _release(judgement: BatchDecisions, situation: BatchSnapshot, closes: Sequence[CloseCall]) -> list[Closing]:
    """The closes that take effect: the first for each open row, which we have locked."""
    closing: dict[UUID, Closing] = {}
    for close in closes:
        row = situation.touched.get(close.id)
        if row is not None and close.id not in closing:
            closing[close.id] = (close, row.opened)
            judgement.release(close, holds_of(row.holds))
    return list(closing.values())


def _release_new(judgement: BatchDecisions, opens: Sequence[OpenCall], closes: Sequence[CloseCall]) -> list[Closing]:
    """The closes of calls opened by this same batch."""
    opening = {each.id: each for each in opens}
    closing: dict[UUID, Closing] = {}
    for close in closes:
        opened = opening.get(close.id)
        if opened is not None and close.id not in closing:
            time_zone = judgement.time_zone_of(opened)
            closing[close.id] = (close, statements.opened_facts(opened, now=judgement.now, time_zone=time_zone))
            judgement.release(close, judgement.holds.get(id(opened), ()))
    return list(closing.values())


def _statements(judgement: BatchDecisions, opens: Sequence[OpenCall], closing: Sequence[Closing]) -> list[Statement]:
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
    close_rows = [statements.close_row(close, opened, now=now, vendor=vendor) for close, opened in closing]
    written: list[Statement] = []
    if open_rows:
        written.append((statements.insert_open_sql(vendor), (orjson.dumps(open_rows).decode(),)))
    if close_rows:
        ids = id_list((row["id"] for row in close_rows), vendor)
        written.append((statements.insert_closed_sql(vendor), (orjson.dumps(close_rows).decode(), ids)))
        written.append((statements.delete_open_sql(vendor), (ids,)))
    # A call opened and released in one batch never claimed anything.
    claiming = [each for each in opens if key_of(each) is not None and each.id not in judgement.dropped_claims]
    written += claim_statements(claiming, judgement.dropped_claims, now=now, vendor=vendor)
    return [*written, *window_statements(judgement.windows, vendor=vendor, now=now)]


def _after_refusal(operation: Operation, error: Exception) -> Result:
    """An open whose row exists was written before, by a commit whose confirmation was lost. One that is closed by now
    has failed: whoever asks again must not send it.
    """
    if isinstance(operation, OpenCall) and isinstance(error, IntegrityError):
        row = models.OpenCall.objects.filter(id=operation.id, request_id=operation.request_id).first()
        # The row doesn't record whether a limit lowered the call's output maximum.
        if row is not None and not row.holds:
            return Opened(row.opened_at)
    return Failed(type(error).__name__)
