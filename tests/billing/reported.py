"""What reports say, and what they should: rows of days added one by one, in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from billing.models import DailyUsage
from billing.usage_reports import UsageMeasures, UsageQuestion, by_account, by_key, usage_report

FIGURES = UsageMeasures._fields

Totals = dict[Any, UsageMeasures]


def reported(question: UsageQuestion) -> dict[str, Totals]:
    report = usage_report(question)
    for by_id in (by_account, by_key):
        found = by_id(question)
        assert [by_id(question, limit=limit) for limit in (0, 1, 3, 100)] == [found[:limit] for limit in (0, 1, 3, 100)]
    assert [each.day for each in report.by_day] == list(question.days)
    return {
        "total": {None: report.total} if report.total.calls else {},
        "day": {each.day: each.figures for each in report.by_day if each.figures.calls},
        "model": {(each.provider, each.model): each.figures for each in report.by_model},
        "account": {each.id: each.figures for each in by_account(question)},
        "key": {each.id: each.figures for each in by_key(question)},
    }


def added_by_hand(question: UsageQuestion) -> dict[str, Totals]:
    rows = list(DailyUsage.objects.filter(local_day__range=(question.first, question.last), **question.narrowed))
    return {
        "total": added(rows, lambda row: None),
        "day": added(rows, lambda row: row.local_day),
        "model": added(rows, lambda row: (row.provider, row.model)),
        "account": added(rows, lambda row: row.account_id),
        "key": added(rows, lambda row: row.api_key_id),
    }


def added(rows: Iterable[DailyUsage], group: Callable[[DailyUsage], Any]) -> Totals:
    """Row by row, in plain Python."""
    sums: dict[Any, dict[str, Any]] = defaultdict(lambda: dict.fromkeys(FIGURES, 0))
    for row in rows:
        for name in FIGURES:
            sums[group(row)][name] += getattr(row, name)
    return {name: UsageMeasures(**figures) for name, figures in sums.items()}
