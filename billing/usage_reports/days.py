"""Usage of some days by day, model, account and key, as frozen dataclasses. Read only from the rollups.

A day is an account's own. Usage recorded since the last refresh isn't included: `as_of` says when that was.

Usage of all accounts is read from days that are summed up (`rows_with`). An account's or a key's usage by model is read
from its own rows, and so is usage of one model by account or key, which is the slowest case.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from heapq import nsmallest
from typing import Any, NamedTuple, TypeVar

from django.db.models import Count, Min, QuerySet, Sum

from billing.models import RollupMark
from billing.models.rollups import COST_FIELDS
from billing.rollup import rows_with
from llm.fields import ExactSum
from llm.money import exact_arithmetic, exact_sum

_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """Which usage: from `first` to `last`, both inclusive; of one account, key, provider or model, or of all."""

    first: date
    last: date
    account_id: int | None = None
    api_key_id: int | None = None
    provider: str | None = None
    model: str | None = None

    @property
    def narrowed(self) -> Mapping[str, int | str]:
        """Column -> the only value wanted for it."""
        wanted = {name: getattr(self, name) for name in ("account_id", "api_key_id", "provider", "model")}
        return {name: value for name, value in wanted.items() if value is not None}

    @property
    def days(self) -> Sequence[date]:
        return [self.first + timedelta(days=offset) for offset in range((self.last - self.first).days + 1)]


class UsageMeasures(NamedTuple):
    """cost: USD, of priced calls alone. estimated: of calls whose tokens were counted by us.

    failed_calls: those that a provider, the network or we ended, also where they used nothing and so are no `calls`.
    No day has them: 0 unless the calls themselves were read.
    """

    calls: int = 0
    estimated_calls: int = 0
    unpriced_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal(0)
    estimated_cost: Decimal = Decimal(0)
    failed_calls: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def estimated_permille(self) -> int:
        """Estimated cost in thousandths of the cost, rounded down."""
        return int(self.estimated_cost * 1000 // self.cost) if self.cost > 0 else 0


@dataclass(frozen=True, slots=True)
class DayUsage:
    day: date
    figures: UsageMeasures


@dataclass(frozen=True, slots=True)
class ModelUsage:
    provider: str
    model: str
    figures: UsageMeasures


class IdUsage(NamedTuple):
    """Of one account or key."""

    id: int
    figures: UsageMeasures


@dataclass(frozen=True, slots=True)
class UsageReport:
    """by_day: every requested day, in order. by_model: models with usage, by cost, highest first.

    as_of: everything recorded up to then is included; None while an account's days are being built.
    """

    question: UsageQuestion
    as_of: datetime | None
    total: UsageMeasures
    by_day: tuple[DayUsage, ...]
    by_model: tuple[ModelUsage, ...]


def usage_report(question: UsageQuestion) -> UsageReport:
    as_of = rolled_up_to(question.account_id)
    columns = ("local_day", "provider", "model")
    cells = read_cells(_sources(question, *columns), *columns)
    days = added(cells, lambda cell: cell[0])
    models = added(cells, lambda cell: (cell[1], cell[2]))
    return UsageReport(
        question=question,
        as_of=as_of,
        total=sum_measures(days.values()),
        by_day=tuple(DayUsage(day, days.get(day, UsageMeasures())) for day in question.days),
        by_model=tuple(ModelUsage(*name, figures) for name, figures in _dearest(models)),
    )


def by_account(question: UsageQuestion, *, limit: int | None = None) -> tuple[IdUsage, ...]:
    """Accounts with usage, by cost, highest first; at most `limit` of them."""
    return _by_id(question, "account_id", limit)


def by_key(question: UsageQuestion, *, limit: int | None = None) -> tuple[IdUsage, ...]:
    """Keys with usage, by cost, highest first; at most `limit` of them."""
    return _by_id(question, "api_key_id", limit)


def rolled_up_to(account_id: int | None = None) -> datetime | None:
    """Up to when the rollups of an account, or of all, are complete; None if those of any account aren't."""
    marks = RollupMark.objects.all() if account_id is None else RollupMark.objects.filter(account=account_id)
    found = marks.aggregate(oldest=Min("cutoff_at"), marks=Count("pk"), moments=Count("cutoff_at"))
    oldest: datetime | None = found["oldest"]
    return oldest if found["marks"] == found["moments"] else None


_Cells = Sequence[tuple[tuple[Any, ...], UsageMeasures]]
DAY_FIELDS = tuple(name for name in UsageMeasures._fields if name != "failed_calls")
"""What of `UsageMeasures` days have, in its order."""
_SUMS: dict[str, Any] = {f"sum_{name}": ExactSum(name) if name in COST_FIELDS else Sum(name) for name in DAY_FIELDS}
_SUM_OF: Sequence[Callable[[Iterable[Any]], Any]] = [
    exact_sum if name in COST_FIELDS else sum for name in UsageMeasures._fields
]


def _by_id(question: UsageQuestion, column: str, limit: int | None) -> tuple[IdUsage, ...]:
    sources = _sources(question, column)
    if limit is not None:
        dearest = _dearest_ids(sources, column, limit)
        sources = [rows.filter(**{f"{column}__in": dearest}) for rows in sources]
    figures = added(read_cells(sources, column), lambda cell: int(cell[0]))
    return tuple(IdUsage(found_id, found) for found_id, found in _dearest(figures))


def _dearest_ids(sources: Iterable[QuerySet[Any]], column: str, limit: int) -> list[int]:
    """In any order. Read before the figures, which take most of the time, for rows that won't be shown."""
    calls: Counter[int] = Counter()
    costs: defaultdict[int, Decimal] = defaultdict(Decimal)
    with exact_arithmetic():
        for rows in sources:
            for found_id, some, cost in rows.values_list(column).annotate(Sum("calls"), ExactSum("cost")):
                calls[found_id] += some
                costs[found_id] += cost
    return nsmallest(limit, costs, key=lambda found_id: _rank(found_id, costs[found_id], calls[found_id]))


def _sources(question: UsageQuestion, *columns: str) -> Sequence[QuerySet[Any]]:
    found = rows_with(*question.narrowed, *columns, days=(question.first, question.last))
    return [rows.filter(**question.narrowed) for rows in found]


def read_cells(sources: Iterable[QuerySet[Any]], *columns: str) -> _Cells:
    """A group may be there more than once."""
    return [
        (row[: len(columns)], UsageMeasures(*row[len(columns) :]))
        for rows in sources
        for row in rows.values_list(*columns).annotate(**_SUMS)
    ]


def added(cells: _Cells, key: Callable[[tuple[Any, ...]], _K]) -> dict[_K, UsageMeasures]:
    groups: dict[_K, list[UsageMeasures]] = defaultdict(list)
    for cell, figures in cells:
        groups[key(cell)].append(figures)
    return {name: group[0] if len(group) == 1 else sum_measures(group) for name, group in groups.items()}


def sum_measures(figures: Collection[UsageMeasures]) -> UsageMeasures:
    columns = zip(*figures, strict=True) if figures else [()] * len(_SUM_OF)
    return UsageMeasures._make(add(column) for add, column in zip(_SUM_OF, columns, strict=True))


def _dearest(groups: Mapping[_K, UsageMeasures]) -> list[tuple[_K, UsageMeasures]]:
    return sorted(groups.items(), key=lambda group: _rank(group[0], group[1].cost, group[1].calls))


def _rank(name: Hashable, cost: Decimal, calls: int) -> tuple[Any, ...]:
    return -cost, -calls, str(name)
