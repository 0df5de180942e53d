"""What reports say, and what they should: rows of days added one by one, in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from heapq import nsmallest
from typing import Any, NamedTuple

from billing.models import DailyUsage
from billing.usage_reports import Dimension, Filters, Measure, Question, UsageMeasures, rolled_up_to
from billing.usage_reports.measures import DAY_FIELDS, sum_measures
from billing.usage_reports.measures import added as added_cells
from billing.usage_reports.sources import Cells, DaysSource, Marks, Only, Unsummed

_NOTHING_SINCE = Unsummed(Cells(tuple(Dimension), ()), None, is_live=True, marks=Marks(None, None, 0, 0))

Totals = dict[Any, UsageMeasures]


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """Which usage: from `first` to `last`, both included; of one account, key, provider or model, or of all."""

    first: date
    last: date
    account_id: int | None = None
    api_key_id: int | None = None
    provider: str | None = None
    model: str | None = None

    @property
    def narrowed(self) -> Mapping[str, int | str]:
        """Column -> the only value that is wanted of it."""
        wanted = {name: getattr(self, name) for name in ("account_id", "api_key_id", "provider", "model")}
        return {name: value for name, value in wanted.items() if value is not None}

    @property
    def days(self) -> Sequence[date]:
        return [self.first + timedelta(days=offset) for offset in range((self.last - self.first).days + 1)]

    @property
    def source(self) -> DaysSource:
        """Days alone, without what was recorded since."""
        keys = () if self.api_key_id is None else (self.api_key_id,)
        filters = Filters(self.account_id, keys, self.provider, self.model)
        return DaysSource(Question(self.first, self.last, filters), _NOTHING_SINCE)


class DayUsage(NamedTuple):
    day: date
    figures: UsageMeasures


class ModelUsage(NamedTuple):
    provider: str
    model: str
    figures: UsageMeasures


class IdUsage(NamedTuple):
    id: int
    figures: UsageMeasures


@dataclass(frozen=True, slots=True)
class UsageReport:
    as_of: datetime | None
    total: UsageMeasures
    by_day: tuple[DayUsage, ...]
    by_model: tuple[ModelUsage, ...]


def usage_report(question: UsageQuestion) -> UsageReport:
    as_of = rolled_up_to(question.account_id)
    cells = list(question.source.sums(Dimension.TIME, Dimension.PROVIDER, Dimension.MODEL).items())
    days = added_cells(cells, lambda cell: cell[0])
    models = added_cells(cells, lambda cell: (cell[1], cell[2]))
    return UsageReport(
        as_of=as_of,
        total=sum_measures(days.values()),
        by_day=tuple(DayUsage(day, days.get(day, UsageMeasures())) for day in question.days),
        by_model=tuple(ModelUsage(*name, figures) for name, figures in sorted(models.items(), key=_rank)),
    )


def by_account(question: UsageQuestion, *, limit: int | None = None) -> tuple[IdUsage, ...]:
    """The dearest first; at most so many of them."""
    return _by_id(question.source, Dimension.ACCOUNT, limit)


def by_key(question: UsageQuestion, *, limit: int | None = None) -> tuple[IdUsage, ...]:
    return _by_id(question.source, Dimension.KEY, limit)


def _by_id(source: DaysSource, dimension: Dimension, limit: int | None) -> tuple[IdUsage, ...]:
    only = None
    if limit is not None:
        ranks = source.ranks(dimension, Measure.COST)
        top = nsmallest(limit, ranks, key=lambda found: (-ranks[found][0], -ranks[found][1], str(found)))
        only = Only(dimension, top)
    found = sorted(source.sums(dimension, only=only).items(), key=_rank)
    return tuple(IdUsage(found_id, figures) for (found_id,), figures in found)


def _rank(group: tuple[Any, UsageMeasures]) -> tuple[Any, ...]:
    name, figures = group
    return -figures.cost, -figures.calls, str(name[0] if len(name) == 1 else name)


def reported(question: UsageQuestion) -> dict[str, Totals]:
    report = usage_report(question)
    for by_id in (by_account, by_key):
        found = by_id(question)
        assert [by_id(question, limit=limit) for limit in (0, 1, 3, 100)] == [found[:limit] for limit in (0, 1, 3, 100)]
    assert [each.day for each in report.by_day] == list(question.days)
    return {
        "total": {None: report.total} if any(report.total) else {},
        "day": {each.day: each.figures for each in report.by_day if any(each.figures)},
        "model": {(each.provider, each.model): each.figures for each in report.by_model},
        "account": {each.id: each.figures for each in by_account(question)},
        "key": {each.id: each.figures for each in by_key(question)},
    }


def added_by_hand(question: UsageQuestion) -> dict[str, Totals]:
    rows = list(DailyUsage.objects.filter(local_day__range=(question.first, question.last), **question.narrowed))
    return {
        "total": _some(added(rows, lambda row: None)),
        "day": _some(added(rows, lambda row: row.local_day)),
        "model": added(rows, lambda row: (row.provider, row.model)),
        "account": added(rows, lambda row: row.account_id),
        "key": added(rows, lambda row: row.api_key_id),
    }


def _some(totals: Totals) -> Totals:
    """Without days that have only void calls, which aren't measured."""
    return {name: figures for name, figures in totals.items() if any(figures)}


def added(rows: Iterable[DailyUsage], group: Callable[[DailyUsage], Any]) -> Totals:
    """Row by row, in plain Python."""
    sums: dict[Any, dict[str, Any]] = defaultdict(lambda: dict.fromkeys(DAY_FIELDS, 0))
    for row in rows:
        for name in DAY_FIELDS:
            sums[group(row)][name] += getattr(row, name)
    return {name: UsageMeasures(**figures) for name, figures in sums.items()}
