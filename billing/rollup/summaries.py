"""Days summed up over all accounts: a report of a month reads some thousand rows where `DailyUsage` has a million.

Whoever writes rows of a day says in the same transaction that the day is stale: it adds a row of `StaleDay`, so that
nobody waits for another. To sum a day up is one transaction too: it takes these rows away, then reads the day. So:

- A write whose row was taken away was committed before the day was read, and is in the sums.
- A write that is committed later has a row that was not there to be taken: the day stays stale.
- Of two who sum up the same day the second waits at the rows that the first has taken, until its sums are there.
- Who is killed leaves days stale, or half a transaction. Stale days are read from their rows until the next refresh.

Whoever knows which days are stale may read the others from their sums at any later moment: those were right then, and
who has replaced them since has put in what was right by that time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet

from billing.models import AccountDay, DailyUsage, KeyDay, ModelDay, StaleDay
from billing.models.rollups import COST_FIELDS, COUNT_FIELDS, SUM_FIELDS
from llm.fields import ExactSum

PAUSE_S = 0.02
"""SQLite: whoever waits for its lock looks for it now and then; who takes it again at once keeps it."""

Summary = type[ModelDay] | type[AccountDay] | type[KeyDay]

_GROUPS: Mapping[Summary, Sequence[str]] = {
    ModelDay: ("local_day", "provider", "model"),
    AccountDay: ("local_day", "account_id", "is_billable"),
    KeyDay: ("local_day", "account_id", "api_key_id"),
}
"""The smallest first."""
_CALL_SUMS = (*COUNT_FIELDS, *COST_FIELDS)
_SUMMED: Mapping[Summary, Sequence[str]] = {ModelDay: _CALL_SUMS, AccountDay: SUM_FIELDS, KeyDay: _CALL_SUMS}


def rows_with(*columns: str) -> Sequence[QuerySet[Any]]:
    """Rows that have these columns and those of `CallSums`, by account alone also digests: together, all usage.

    From days that are summed up where their sums have the columns, else from `DailyUsage`. Several rows may be of one
    day and group, also of two of the querysets: add them.
    """
    summary = next((each for each, group in _GROUPS.items() if {*columns} <= {*group}), None)
    if summary is None:
        return (DailyUsage.objects.order_by(),)
    stale = _stale_days()
    summed: QuerySet[Any] = summary.objects.exclude(local_day__in=stale).order_by()
    return (summed, DailyUsage.objects.filter(local_day__in=stale).order_by()) if stale else (summed,)


def mark_stale(days: Iterable[date]) -> None:
    """Inside the transaction that writes rows of these days."""
    StaleDay.objects.bulk_create([StaleDay(local_day=day) for day in sorted({*days})])


def mark_all_stale(first: date, last: date) -> None:
    """All days that are summed up, also those of which no row is left."""
    for summary in _GROUPS:
        days = summary.objects.filter(local_day__range=(first, last)).order_by()
        mark_stale(days.values_list("local_day", flat=True).distinct())


def summarise() -> None:
    """Sum up the days that are stale. Never inside a transaction: each day's is its own."""
    for day in _stale_days():
        _sum_up(day)
        if connection.vendor == "sqlite":
            time.sleep(PAUSE_S)


def days_summed_wrongly(first: date, last: date) -> Sequence[date]:
    """Of those that are not stale."""
    wrong: set[date] = set()
    for summary, group in _GROUPS.items():
        sums = {f"sum_{name}": ExactSum(name) for name in _SUMMED[summary]}
        summed, rows = (_settled(model, group, sums, first, last) for model in (summary, DailyUsage))
        wrong.update(row[0] for row in (*summed.difference(rows), *rows.difference(summed)))
    return sorted(wrong)


def _stale_days() -> Sequence[date]:
    return list(StaleDay.objects.order_by("local_day").values_list("local_day", flat=True).distinct())


def _sum_up(day: date) -> None:
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        if not StaleDay.objects.filter(local_day=day).delete()[0]:
            return
        for summary, group in _GROUPS.items():
            summary.objects.filter(local_day=day).delete()
            cursor.execute(_insert_sql(summary, ", ".join(group)), [day.isoformat()])


def _insert_sql(summary: Summary, group: str) -> str:
    exact_sum = "LLM_EXACT_SUM" if connection.vendor == "sqlite" else "SUM"
    columns = _SUMMED[summary]
    sums = (f"{exact_sum if name in COST_FIELDS else 'SUM'}({name})" for name in columns)
    return (
        f"INSERT INTO {summary._meta.db_table} ({group}, {', '.join(columns)}) "  # noqa: S608
        f"SELECT {group}, {', '.join(sums)} FROM billing_dailyusage WHERE local_day = %s GROUP BY {group}"
    )


def _settled(
    model: type[Any], group: Sequence[str], sums: Mapping[str, ExactSum], first: date, last: date
) -> QuerySet[Any]:
    """In one statement with the days that are stale: no writer comes in between."""
    stale = StaleDay.objects.order_by().values("local_day")
    rows = model.objects.filter(local_day__range=(first, last)).exclude(local_day__in=stale).order_by()
    groups: QuerySet[Any] = rows.values_list(*group).annotate(**sums)
    return groups
