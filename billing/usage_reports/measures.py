"""What was used, in figures that add up exactly, and how they are read from rows of days."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from django.db.models import Count, Min, QuerySet, Sum

from billing.models import RollupMark
from billing.models.rollups import COST_FIELDS
from llm.fields import ExactSum
from llm.money import exact_sum

_K = TypeVar("_K", bound=Hashable)


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


DAY_FIELDS = tuple(name for name in UsageMeasures._fields if name != "failed_calls")
"""What of `UsageMeasures` days have, in its order."""
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
