"""Carries out a plan in a few large statements; each transaction writes complete accounts, marks included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from django.db import connection, transaction

from billing.rollup.refresh_plan import FIRST_DAY, Days, RefreshPlan
from billing.rollup.statements import (
    COLUMNS,
    DAYS_OF_ACCOUNTS,
    END_USER_COLUMNS,
    WHOLE_ACCOUNTS,
    days_sql,
    end_user_days_sql,
)

DAYS_AT_A_TIME = 2000
"""Account-days in one transaction, for which billing one of these accounts must wait."""

_MAKE_MARKS = (
    "INSERT INTO billing_rollupmark (account_id) SELECT account_id FROM unnest(%s::bigint[]) AS t(account_id) "
    "ORDER BY account_id ON CONFLICT DO NOTHING"
)
_LOCK_MARKS = (
    "SELECT account_id FROM billing_rollupmark WHERE account_id = ANY(%s::bigint[]) "
    "AND (cutoff_at IS NULL OR cutoff_at < %s) ORDER BY account_id FOR UPDATE"
)
_MOVE_MARKS = "UPDATE billing_rollupmark SET cutoff_at = %s, rolling_to = NULL WHERE account_id = ANY(%s::bigint[])"
_MOVE_CHANGED_MARKS = (
    "UPDATE billing_rollupmark m SET cutoff_at = %s, rolling_to = NULL, changed_from = LEAST(m.changed_from, t.day) "
    "FROM unnest(%s::bigint[], %s::date[]) AS t(account_id, day) WHERE m.account_id = t.account_id"
)
_DELETE = (
    "DELETE FROM billing_dailyusage d USING unnest(%(accounts)s::bigint[], %(days)s::date[]) AS t(account_id, day) "
    "WHERE d.account_id = t.account_id AND d.local_day = t.day"
)
_DELETE_END_USERS = _DELETE.replace("billing_dailyusage", "billing_enduserday")
_DELETE_WHOLE = "DELETE FROM billing_dailyusage WHERE account_id = ANY(%(accounts)s::bigint[])"
_DELETE_WHOLE_END_USERS = _DELETE_WHOLE.replace("billing_dailyusage", "billing_enduserday")
_AND_MARK_STALE = (
    "WITH written AS ({write} RETURNING local_day) "
    "INSERT INTO billing_staleday (local_day) SELECT DISTINCT local_day FROM written"
)


def carry_out(plan: RefreshPlan) -> Iterator[int]:
    """Yields after each transaction how many account-days it covered; a whole account counts as one."""
    if plan.whole:
        _write_whole(plan.whole, plan.cutoff)
        yield len(plan.whole)
    for batch in _batches(plan.days):
        _write_days(batch, plan.cutoff)
        yield sum(map(len, batch.values()))
    _move_untouched(plan.untouched, plan.cutoff)


def _batches(days: Mapping[int, Days]) -> Iterator[Mapping[int, Days]]:
    batch: dict[int, Days] = {}
    number = 0
    for account_id, some in days.items():
        batch[account_id] = some
        number += len(some)
        if number >= DAYS_AT_A_TIME:
            yield batch
            batch, number = {}, 0
    if batch:
        yield batch


def _write_whole(account_ids: Sequence[int], cutoff: datetime) -> None:
    """In one transaction: picking single accounts out of all calls takes as long as reading all of them."""
    with transaction.atomic(durable=True):
        if locked := _lock_marks(account_ids, cutoff):
            _make_anew((_DELETE_WHOLE, _DELETE_WHOLE_END_USERS), WHOLE_ACCOUNTS, cutoff, accounts=locked)
            _move_changed_marks(dict.fromkeys(locked, FIRST_DAY), cutoff)


def _write_days(batch: Mapping[int, Days], cutoff: datetime) -> None:
    with transaction.atomic(durable=True):
        if locked := _lock_marks(list(batch), cutoff):
            pairs = [(account_id, day) for account_id in locked for day in sorted(batch[account_id])]
            accounts, days = [list(column) for column in zip(*pairs, strict=True)]
            _make_anew((_DELETE, _DELETE_END_USERS), DAYS_OF_ACCOUNTS, cutoff, accounts=accounts, days=days)
            _move_changed_marks({account_id: min(batch[account_id]) for account_id in locked}, cutoff)


def _move_untouched(account_ids: Sequence[int], cutoff: datetime) -> None:
    with transaction.atomic(durable=True):
        _move_marks(_lock_marks(account_ids, cutoff), cutoff)


def _lock_marks(account_ids: Sequence[int], cutoff: datetime) -> list[int]:
    """The accounts that are ours to write: no other process has brought them to the cutoff. Missing marks are created.

    Locked in ascending order; holding an account's lock means seeing its days in one consistent state.
    """
    with connection.cursor() as cursor:
        cursor.execute(_MAKE_MARKS, [list(account_ids)])
        cursor.execute(_LOCK_MARKS, [list(account_ids), cutoff])
        return [account_id for (account_id,) in cursor.fetchall()]


def _make_anew(deletes: tuple[str, str], scope: str, cutoff: datetime, **chosen: Sequence[object]) -> None:
    """deletes: for days, and for their end users."""
    parameters: dict[str, Any] = {**chosen, "cutoff": cutoff}
    # In this order, the rows of a day are adjacent, and those of an account within it: reading either takes a few
    # pages.
    rows = f"{days_sql(scope, 'postgresql')} ORDER BY local_day, account_id"
    insert = f"INSERT INTO billing_dailyusage ({', '.join(COLUMNS)}) {rows}"
    end_users = end_user_days_sql(scope, "postgresql")
    with connection.cursor() as cursor:
        for write in (deletes[0], insert):
            cursor.execute(_AND_MARK_STALE.format(write=write), parameters)
        cursor.execute(deletes[1], parameters)
        cursor.execute(f"INSERT INTO billing_enduserday ({', '.join(END_USER_COLUMNS)}) {end_users}", parameters)


def _move_marks(account_ids: Sequence[int], cutoff: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_MOVE_MARKS, [cutoff, list(account_ids)])


def _move_changed_marks(earliest: Mapping[int, date], cutoff: datetime) -> None:
    """earliest: of the days that were rebuilt, by account."""
    with connection.cursor() as cursor:
        cursor.execute(_MOVE_CHANGED_MARKS, [cutoff, list(earliest), list(earliest.values())])
