"""What was used, in figures that add up exactly, and how they are read from rows of days."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from django.db.models import Count, Min, QuerySet, Sum

from billing.models import RollupMark
from billing.models.rollups import COST_FIELDS, LATENCY_FIELDS
from llm.fields import ExactSum
from llm.money import exact_sum

_K = TypeVar("_K", bound=Hashable)


class UsageMeasures(NamedTuple):
    """cost: USD, of priced calls alone. estimated: of calls whose tokens were counted by us.

    failed_calls: those that a provider, the network or we ended, also where they used nothing and so are no `calls`.
    latency_*: of `billing.models.rollups.CallTimes`. Days of the former shape have neither.
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
    latency_le_250: int = 0
    latency_le_500: int = 0
    latency_le_1000: int = 0
    latency_le_2000: int = 0
    latency_le_4000: int = 0
    latency_le_8000: int = 0
    latency_le_16000: int = 0
    latency_le_32000: int = 0
    latency_le_64000: int = 0
    latency_le_128000: int = 0
    latency_above: int = 0

    @property
    def latencies(self) -> Sequence[int]:
        """Calls by bucket: as LATENCY_FIELDS."""
        return [getattr(self, name) for name in LATENCY_FIELDS]

    def latency_bucket(self, percent: int) -> int | None:
        """The bucket in which this percentile is; None without a call that was measured."""
        total = sum(self.latencies)
        reached = accumulate(self.latencies)
        found = (number for number, calls in enumerate(reached) if calls * 100 >= total * percent)
        return next(found, None) if total else None


DAY_FIELDS = UsageMeasures._fields
Cells = Sequence[tuple[tuple[Any, ...], UsageMeasures]]

_SUMS: dict[str, Any] = {f"sum_{name}": ExactSum(name) if name in COST_FIELDS else Sum(name) for name in DAY_FIELDS}
_SUM_OF: Sequence[Callable[[Iterable[Any]], Any]] = [
    exact_sum if name in COST_FIELDS else sum for name in UsageMeasures._fields
]


def rolled_up_to(account_id: int | None = None) -> datetime | None:
    """Up to when everything is in the rollups, of an account or of all; None where there is one whose days are not."""
    marks = RollupMark.objects.all() if account_id is None else RollupMark.objects.filter(account=account_id)
    found = marks.aggregate(oldest=Min("cutoff_at"), marks=Count("pk"), moments=Count("cutoff_at"))
    oldest: datetime | None = found["oldest"]
    return oldest if found["marks"] == found["moments"] else None


def read_cells(sources: Iterable[QuerySet[Any]], *columns: str) -> Cells:
    """A group may be there more than once."""
    return [
        (row[: len(columns)], UsageMeasures(*row[len(columns) :]))
        for rows in sources
        for row in rows.values_list(*columns).annotate(**_SUMS)
    ]


def added(cells: Cells, key: Callable[[tuple[Any, ...]], _K]) -> dict[_K, UsageMeasures]:
    groups: dict[_K, list[UsageMeasures]] = defaultdict(list)
    for cell, figures in cells:
        groups[key(cell)].append(figures)
    return {name: group[0] if len(group) == 1 else sum_measures(group) for name, group in groups.items()}


def sum_measures(figures: Collection[UsageMeasures]) -> UsageMeasures:
    columns = zip(*figures, strict=True) if figures else [()] * len(_SUM_OF)
    return UsageMeasures._make(add(column) for add, column in zip(_SUM_OF, columns, strict=True))
