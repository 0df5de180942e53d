"""Carries out a plan beside the other writer, the gateway: reads at length, writes in short transactions.

What fits into one transaction is written together with the account's mark. Anything larger is first claimed: the mark
then says that the days aren't in a consistent state and up to which cutoff they are being built, and readers of the
rollups find none. A later cutoff takes over the claim and builds all days of the account, also after a crash; the
former owner notices before it writes again, and gives up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import DateField, QuerySet
from django.db.models.functions import Coalesce, Least

from billing.models import DailyUsage, EndUserDay, RollupMark
from billing.rollup.refresh_plan import FIRST_DAY, Days, RefreshPlan
from billing.rollup.statements import COLUMNS, DAYS_OF_ACCOUNT, END_USER_COLUMNS, days_sql, end_user_days_sql
from billing.rollup.summaries import mark_stale
from llm.db.json_rows import moment_text
from llm.models import Usage

ROWS_AT_A_TIME = 400
"""Rows deleted or inserted in one transaction: some ten milliseconds."""
DAYS_AT_A_TIME = 31
"""Days read, and held in memory, at a time."""
PAUSE_S = 0.02

Row = tuple[Any, ...]

_MODELS: tuple[type[DailyUsage] | type[EndUserDay], ...] = (DailyUsage, EndUserDay)


def _insert_sql(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"  # noqa: S608


_INSERT = _insert_sql("billing_dailyusage", COLUMNS)
_INSERT_END_USER = _insert_sql("billing_enduserday", END_USER_COLUMNS)
_MOVE_UNTOUCHED = (
    "UPDATE billing_rollupmark SET cutoff_at = %(cutoff)s "
    "WHERE cutoff_at < %(cutoff)s AND account_id IN (SELECT value FROM json_each(%(accounts)s))"
)


class _TakenOverError(Exception):
    """Another process brings the account, or has brought it, to this cutoff or a later one."""


class _NeedsAllDaysError(Exception):
    """What the account's other days hold is no longer known."""


@dataclass(frozen=True, slots=True)
class _Task:
    """days: None for all of the account's."""

    account_id: int
    days: Days | None
    cutoff: datetime


def carry_out(plan: RefreshPlan) -> Iterator[int]:
    """Yields after each account how many days it covered; a whole account counts as one."""
    for account_id in plan.whole:
        _bring(_Task(account_id, None, plan.cutoff))
        yield 1
    for account_id, days in plan.days.items():
        _bring(_Task(account_id, days, plan.cutoff))
        yield len(days)
    with transaction.atomic(durable=True):
        cutoff = moment_text(plan.cutoff, "sqlite")
        _execute(_MOVE_UNTOUCHED, {"cutoff": cutoff, "accounts": json.dumps(plan.untouched)})


def _bring(task: _Task) -> None:
    with suppress(_TakenOverError):
        try:
            _write(task)
        except _NeedsAllDaysError:
            _write(replace(task, days=None))


def _write(task: _Task) -> None:
    slices = _slices(_all_days(task.account_id) if task.days is None else task.days)
    rows = _read(task, slices[0])
    if len(slices) > 1 or rows.number + _count(task, slices[0]) > ROWS_AT_A_TIME:
        _write_piecemeal(task, slices)
        return
    with transaction.atomic(durable=True):
        _take(task)
        _delete(task, slices[0], limit=ROWS_AT_A_TIME)
        _insert(rows)
        mark_stale(slices[0])
        _finish(task)


def _write_piecemeal(task: _Task, slices: Sequence[Sequence[date]]) -> None:
    with transaction.atomic(durable=True):
        _take(task)
        _mark(task).update(cutoff_at=None, rolling_to=task.cutoff)
    for days in slices:
        rows = _read(task, days)
        deleted = 1
        while deleted:
            with _claimed(task):
                deleted = _delete(task, days, limit=ROWS_AT_A_TIME)
                mark_stale(days)
        for part in rows.parts(ROWS_AT_A_TIME):
            with _claimed(task):
                _insert(part)
                mark_stale(days)
    with _claimed(task):
        _finish(task)


def _take(task: _Task) -> None:
    """Inside the transaction that writes. Raises if there is nothing to write, or more than this."""
    mark, _ = RollupMark.objects.get_or_create(account_id=task.account_id)
    if any(moment is not None and moment >= task.cutoff for moment in (mark.cutoff_at, mark.rolling_to)):
        raise _TakenOverError
    if mark.cutoff_at is None and task.days is not None:
        raise _NeedsAllDaysError


@contextmanager
def _claimed(task: _Task) -> Iterator[None]:
    """One of the transactions under the claim. Raises _TakenOverError if it is no longer ours."""
    time.sleep(PAUSE_S)
    with transaction.atomic(durable=True):
        if not _mark(task).filter(rolling_to=task.cutoff).exists():
            raise _TakenOverError
        yield


def _finish(task: _Task) -> None:
    day = FIRST_DAY if task.days is None else min(task.days)
    earliest = Least(Coalesce("changed_from", day), day, output_field=DateField())
    _mark(task).update(cutoff_at=task.cutoff, rolling_to=None, changed_from=earliest)


def _mark(task: _Task) -> QuerySet[RollupMark]:
    return RollupMark.objects.filter(account=task.account_id)


def _all_days(account_id: int) -> frozenset[date]:
    """Days with calls, and days with rows."""
    calls = Usage.objects.filter(account=account_id).order_by().values_list("local_day", flat=True)
    rows = DailyUsage.objects.filter(account=account_id).order_by().values_list("local_day", flat=True)
    return frozenset(calls.union(rows))


def _slices(days: Days) -> list[Sequence[date]]:
    """At least one, which may be empty."""
    ordered = sorted(days)
    return [ordered[start : start + DAYS_AT_A_TIME] for start in range(0, len(ordered), DAYS_AT_A_TIME)] or [[]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Of days, and of their end users."""

    days: Sequence[Row]
    end_users: Sequence[Row]

    @property
    def number(self) -> int:
        return len(self.days) + len(self.end_users)

    def parts(self, size: int) -> Iterator[_Rows]:
        for start in range(0, len(self.days), size):
            yield _Rows(self.days[start : start + size], ())
        for start in range(0, len(self.end_users), size):
            yield _Rows((), self.end_users[start : start + size])


def _read(task: _Task, days: Sequence[date]) -> _Rows:
    """The rows as they should be."""
    parameters: dict[str, Any] = {
        "account": task.account_id,
        "days": _document(days),
        "cutoff": moment_text(task.cutoff, "sqlite"),
    }
    with connection.cursor() as cursor:
        cursor.execute(days_sql(DAYS_OF_ACCOUNT, "sqlite"), parameters)
        rows = list(cursor.fetchall())
        cursor.execute(end_user_days_sql(DAYS_OF_ACCOUNT, "sqlite"), parameters)
        return _Rows(rows, list(cursor.fetchall()))


def _count(task: _Task, days: Sequence[date]) -> int:
    return sum(model.objects.filter(account=task.account_id, local_day__in=days).count() for model in _MODELS)


def _delete(task: _Task, days: Sequence[date], *, limit: int) -> int:
    """How many rows were deleted: at most `limit` of days, and of end users."""
    return sum(_delete_from(model._meta.db_table, task, days, limit=limit) for model in _MODELS)


def _delete_from(table: str, task: _Task, days: Sequence[date], *, limit: int) -> int:
    return _execute(
        f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE account_id = %(account)s "  # noqa: S608
        "AND local_day IN (SELECT value FROM json_each(%(days)s)) LIMIT %(limit)s)",
        {"account": task.account_id, "days": _document(days), "limit": limit},
    )


def _insert(rows: _Rows) -> None:
    with connection.cursor() as cursor:
        if rows.days:
            cursor.executemany(_INSERT, rows.days)
        if rows.end_users:
            cursor.executemany(_INSERT_END_USER, rows.end_users)


def _execute(sql: str, parameters: dict[str, Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)


def _document(days: Sequence[date]) -> str:
    return json.dumps([day.isoformat() for day in days])
