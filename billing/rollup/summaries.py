"""Days summed up over all accounts: a month's report reads some thousand rows instead of `DailyUsage`'s million.

A writer of a day's rows marks the day as stale in the same transaction, by adding a row of `StaleDay`, so that writers
don't wait for one another. Summing a day up is one transaction too: it deletes these rows, then reads the day. So:

- A write whose row was deleted was committed before the day was read, and is in the sums.
- A write that is committed later has a row that wasn't there to be deleted: the day stays stale.
- One process sums up at a time. If two do the same day, the second finds it done; if they do days of the same third of
  a month, the second reads what the first has written.
- A process that is killed leaves stale days. Those are read from their rows until the next refresh.
- A third of a month is summed up again with any of its days, in the same transaction: if none of them is stale, its
  sums are those of its days, and a report reads a tenth of the rows.

Knowing which days are stale, a reader may take the others from their sums at any later moment: they were right then,
and any replacement was right at its own time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, Model, Q, QuerySet

from billing.models import AccountDay, DailyUsage, KeyDay, KeyThird, ModelDay, StaleDay
from billing.models.rollups import COST_FIELDS, COUNT_FIELDS, SUM_FIELDS, TIME_FIELDS
from billing.periods import Third
from llm.fields import ExactSum

PAUSE_S = 0.02
"""SQLite: processes that wait for its lock only poll it, so retaking it at once would starve them."""

Days = tuple[date, date]
"""The first and the last day, both inclusive."""
SummaryOfDay = type[ModelDay] | type[AccountDay] | type[KeyDay]
Summary = SummaryOfDay | type[KeyThird]

_GROUPS: Mapping[SummaryOfDay, Sequence[str]] = {
    ModelDay: ("provider", "model", "provider_instance", "outcome_group"),
    AccountDay: ("account_id", "is_billable"),
    KeyDay: ("account_id", "api_key_id"),
}
"""What a day is summed up by; the smallest sums first."""
_LOCK = 0x6C6C6D73
_ONE_DAY = timedelta(days=1)


def rows_with(*columns: str, days: Days | None = None) -> Sequence[QuerySet[Any]]:
    """Rows of these days (None: all) that have these columns and those of `CallSums`; together, all usage.

    Days that are summed up come from their sums, if those have the columns, otherwise from `DailyUsage`. Rows by
    account alone have digests too. Several rows, also of different querysets, may be of the same day and group: add
    them up. `local_day` of a row may be the first of several days, unless it is among the columns or no days are given.
    """
    summary = next((each for each, group in _GROUPS.items() if {*columns} <= {"local_day", *group}), None)
    if summary is None:
        return (_within(days, DailyUsage),)
    by_day, stale = _within(days, summary), _stale_days()
    thirds: list[QuerySet[Any]] = []
    if summary is KeyDay and days is not None and "local_day" not in columns:
        whole, others = _in_thirds(days, stale)
        thirds, by_day = [KeyThird.objects.filter(whole).order_by()], KeyDay.objects.filter(others).order_by()
    unsummed = [_within(days, DailyUsage).filter(local_day__in=stale)] if stale else []
    return [*thirds, by_day.exclude(local_day__in=stale), *unsummed]


def mark_stale(days: Iterable[date]) -> None:
    """Call it inside the transaction that writes rows of these days."""
    StaleDay.objects.bulk_create([StaleDay(local_day=day) for day in sorted({*days})])


def mark_all_stale(first: date, last: date) -> None:
    """All days that are summed up, even those without rows."""
    for summary in (*_GROUPS, KeyThird):
        mark_stale(_days_of(summary, (first, last)))


def summarise() -> None:
    """Sum up the stale days. Never call it inside a transaction: it has its own."""
    for days in _portions():
        _sum_up(days)
        if connection.vendor == "sqlite":
            time.sleep(PAUSE_S)


def days_summed_wrongly(first: date, last: date) -> Sequence[date]:
    """Among days that aren't stale. If only a third of a month is wrong, it is given by its first day."""
    wrong: set[date] = set()
    stale, days = StaleDay.objects.order_by(), (first, last)
    of_settled_days = Q(local_day__range=days) & ~Q(local_day__in=stale.values("local_day"))
    for summary, group in _GROUPS.items():
        wrong.update(row[0] for row in _differences(summary, DailyUsage, ("local_day", *group), of_settled_days))
    for third in {Third.of(day) for summary in (KeyDay, KeyThird) for day in _days_of(summary, days)}:
        of_settled_third = Q(~Exists(stale.filter(local_day__range=third)), local_day__range=third)
        if _differences(KeyThird, KeyDay, _GROUPS[KeyDay], of_settled_third):
            wrong.add(third.first)
    return sorted(wrong)


def _stale_days() -> Sequence[date]:
    return list(StaleDay.objects.order_by("local_day").values_list("local_day", flat=True).distinct())


def _days_of(summary: Summary, days: Days) -> Iterable[date]:
    """Those of these days for which there are sums."""
    return _within(days, summary).values_list("local_day", flat=True).distinct()


def _within(days: Days | None, model: type[Any]) -> QuerySet[Any]:
    rows: QuerySet[Any] = model.objects.order_by()
    return rows if days is None else rows.filter(local_day__range=days)


def _in_thirds(days: Days, stale: Iterable[date]) -> tuple[Q, Q]:
    """Conditions for rows of `KeyThird` of whole thirds without a stale day, and for days in none of those."""
    head, tail = Third.of(days[0]), Third.of(days[1])
    first = head.first if head.first == days[0] else head.last + _ONE_DAY
    last = tail.last if tail.last == days[1] else tail.first - _ONE_DAY
    if first > last:
        return Q(pk__in=()), Q(local_day__range=days)
    broken = {Third.of(day) for day in stale if first <= day <= last}
    others = (days[0], first - _ONE_DAY), (last + _ONE_DAY, days[1]), *broken
    thirds = Q(local_day__range=(first, last)) & ~Q(local_day__in=[third.first for third in broken])
    return thirds, reduce(or_, (Q(local_day__range=each) for each in others))


def _portions() -> Iterator[Sequence[date]]:
    """Stale days, grouped by third of a month; on SQLite, where everything else waits, one by one."""
    name: Callable[[date], object] = Third.of if connection.vendor == "postgresql" else str
    return (list(days) for _, days in groupby(_stale_days(), name))


def _sum_up(days: Sequence[date]) -> None:
    """Sums up those of the days that are still stale; all are in one third of a month."""
    third = Third.of(days[0])
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        taken = [day for day in days if StaleDay.objects.filter(local_day=day).delete()[0]]
        if not taken:
            return
        for summary, group in _GROUPS.items():
            summary.objects.filter(local_day__in=taken).delete()
            for day in taken:
                cursor.execute(_insert_sql(summary, DailyUsage, group), [day, day, day])
        KeyThird.objects.filter(local_day=third.first).delete()
        cursor.execute(_insert_sql(KeyThird, KeyDay, _GROUPS[KeyDay]), [third.first, *third])


def _insert_sql(summary: Summary, source: type[Model], group: Sequence[str]) -> str:
    """Three parameters: the day to store the sums under, and the first and last day of their source."""
    exact_sum = "LLM_EXACT_SUM" if connection.vendor == "sqlite" else "SUM"
    columns, groups = _summed_columns(summary), ", ".join(group)
    sums = (f"{exact_sum if name in COST_FIELDS else 'SUM'}({name})" for name in columns)
    return (
        f"INSERT INTO {summary._meta.db_table} (local_day, {groups}, {', '.join(columns)}) "  # noqa: S608
        f"SELECT %s, {groups}, {', '.join(sums)} FROM {source._meta.db_table} "
        f"WHERE local_day BETWEEN %s AND %s GROUP BY {groups}"
    )


def _differences(summary: Summary, source: type[Any], group: Sequence[str], condition: Q) -> Sequence[Any]:
    """Groups whose sums differ from the source, each found in one statement, so that no write comes between."""
    sums = {f"sum_{name}": ExactSum(name) for name in _summed_columns(summary)}
    summed, made_of = (
        model.objects.filter(condition).order_by().values_list(*group).annotate(**sums) for model in (summary, source)
    )
    return [*summed.difference(made_of), *made_of.difference(summed)]


def _summed_columns(summary: Summary) -> Sequence[str]:
    sums = SUM_FIELDS if summary is AccountDay else (*COUNT_FIELDS, *COST_FIELDS)
    return (*sums, *TIME_FIELDS)
