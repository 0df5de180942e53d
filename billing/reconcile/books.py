"""Our side: a provider's calls on a UTC day according to the books, adjustments included.

Providers' days are UTC, so `local_day` can't be used: days are decided by `opened_at`, the database's clock. The query
is bounded by the id, a uuid7 of the gateway's clock, through the primary key; `CLOCK_SKEW` is how far the two may
differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Case, Count, Exists, F, OuterRef, Prefetch, Q, QuerySet, When

from billing.reconcile.types import Books, Side, count_of, total_of
from billing.rollup import load_rates
from llm.books.figures import compute_figures
from llm.enums import AdjustmentSource, UsageSource, UsageStatus
from llm.fields import ExactSum
from llm.ids import first_id_at
from llm.models import OpenCall, Usage, UsageAdjustment
from llm.money import pico_to_usd

CLOCK_SKEW = timedelta(hours=1)
"""Between a gateway's clock, which made the id, and the database's, which stamped the call; includes waiting."""

_CLOSED = (UsageStatus.SETTLED, UsageStatus.ESTIMATED)
_KNOWN_LATER = (AdjustmentSource.SPOOL, AdjustmentSource.PROVIDER)
_SUMS = {
    f"sum_{name}": ExactSum(name)
    for name in (
        "prompt_tokens",
        "completion_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "cost",
    )
}
_ADJUSTMENTS = Prefetch("adjustments", queryset=UsageAdjustment.objects.order_by("id"))
_USED_TOKENS = Q(prompt_tokens__gt=0) | Q(completion_tokens__gt=0)


@dataclass(slots=True)
class _Sums:
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced_calls: int = 0
    estimated_calls: int = 0
    open_calls: int = 0
    beside_tokens_pico: int = 0

    def add(self, row: Mapping[str, Any], *, sign: int) -> None:
        """sign: for the numbers of calls. Adjustments add tokens and cost, and take calls out of an uncertain state."""
        self.prompt_tokens += row["sum_prompt_tokens"] or 0
        self.completion_tokens += row["sum_completion_tokens"] or 0
        self.cache_read_tokens += row["sum_cache_read_tokens"] or 0
        self.cache_write_tokens += (row["sum_cache_write_5m_tokens"] or 0) + (row["sum_cache_write_1h_tokens"] or 0)
        self.cost = total_of((self.cost, row["sum_cost"])) or Decimal(0)
        self.calls += row.get("calls", 0)
        self.unpriced_calls += sign * row["unpriced_calls"]
        self.estimated_calls += sign * row["estimated_calls"]


def books_of_day(provider: str, day: date) -> dict[str, Books]:
    """By the provider's name for the model, or else the name that we requested."""
    opened = _count_open_calls(provider, day)
    calls = list(_sums_of_calls(provider, day))
    names = _names_of(calls)
    sums: dict[str, _Sums] = defaultdict(_Sums)
    for row in calls:
        sums[names[row["asked"], row["reported"]]].add(row, sign=1)
    for row in _sums_of_adjustments(provider, day):
        # A call that was just closed may have got its reported name between the two queries.
        name = names.get((row["asked"], row["reported"]), row["reported"] or row["asked"])
        sums[name].add(row, sign=-1)
    for (asked, reported), cost_pico in _costs_beside_tokens(provider, day).items():
        sums[names.get((asked, reported), reported or asked)].beside_tokens_pico += cost_pico
    for asked, number in opened:
        sums[names.get((asked, ""), asked)].open_calls += number
    return {name: _as_books(figures) for name, figures in sums.items()}


def _calls_of(provider: str, day: date) -> QuerySet[Usage]:
    return Usage.objects.filter(_is_of(provider, day)).exclude(status=UsageStatus.VOID)


def _count_open_calls(provider: str, day: date) -> list[tuple[str, int]]:
    """By the name that we requested."""
    opened = OpenCall.objects.filter(_is_of(provider, day)).order_by()
    return list(opened.values_list("upstream_model").annotate(Count("pk")))


def _is_of(provider: str, day: date) -> Q:
    starts_at, ends_at = _bounds(day)
    return Q(
        id__gte=first_id_at(starts_at - CLOCK_SKEW),
        id__lt=first_id_at(ends_at + CLOCK_SKEW),
        opened_at__gte=starts_at,
        opened_at__lt=ends_at,
        provider=provider,
    )


def _costs_beside_tokens(provider: str, day: date) -> dict[tuple[str, str], int]:
    """Pico-units of USD by requested and reported name, for units such as web searches, which few calls have."""
    adjusted = UsageAdjustment.objects.filter(usage=OuterRef("pk")).exclude(extra_meters={})
    has_some = ~Q(extra_meters={}) | Exists(adjusted)
    rows = list(_calls_of(provider, day).filter(has_some).order_by().prefetch_related(_ADJUSTMENTS))
    figures = [(row, compute_figures(row, row.adjustments.all())) for row in rows]
    rates = load_rates(each.rate_set_id for _, each in figures) if figures else {}
    costs: dict[tuple[str, str], int] = defaultdict(int)
    for row, each in figures:
        of_rate_set = rates.get(each.rate_set_id or 0, {})
        cost_pico = sum(units * of_rate_set.get(meter, 0) for meter, units in each.counts.extra_meters.items())
        # Nothing was charged for them if the call has no cost.
        costs[row.upstream_model, row.reported_model] += cost_pico if each.cost_pico else 0
    return costs


def _sums_of_calls(provider: str, day: date) -> Iterable[Mapping[str, Any]]:
    calls = _calls_of(provider, day)
    closed = Q(status__in=_CLOSED)
    return (
        calls.order_by()
        .values(asked=F("upstream_model"), reported=F("reported_model"))
        .annotate(
            calls=Count("pk", filter=closed),
            unpriced_calls=Count("pk", filter=closed & Q(cost=None) & _USED_TOKENS),
            estimated_calls=Count("pk", filter=Q(usage_source=UsageSource.ESTIMATED)),
            **_SUMS,
        )
    )


def _sums_of_adjustments(provider: str, day: date) -> Iterable[Mapping[str, Any]]:
    """unpriced_calls, estimated_calls: negative for calls that the adjustments have priced, or given the provider's
    figures.
    A call that they have left without a cost counts as unpriced, whatever it had before.
    """
    starts_at, ends_at = _bounds(day)
    adjustments = UsageAdjustment.objects.filter(
        usage_id__gte=first_id_at(starts_at - CLOCK_SKEW),
        usage_id__lt=first_id_at(ends_at + CLOCK_SKEW),
        usage__opened_at__gte=starts_at,
        usage__opened_at__lt=ends_at,
        usage__provider=provider,
    ).exclude(usage__status=UsageStatus.VOID)
    used_tokens = Q(usage__prompt_tokens__gt=0) | Q(usage__completion_tokens__gt=0)
    priced = Q(usage__cost=None, cost__isnull=False) & used_tokens
    counted = Q(usage__usage_source=UsageSource.ESTIMATED, source__in=_KNOWN_LATER)
    return (
        adjustments.order_by()
        .values(asked=F("usage__upstream_model"), reported=F("usage__reported_model"))
        .annotate(
            unpriced_calls=Count(Case(When(priced, then=F("usage_id"))), distinct=True)
            - Count(Case(When(Q(pk__in=adjustments.taking_cost_back().values("pk")), then=F("pk")))),
            estimated_calls=Count(Case(When(counted, then=F("usage_id"))), distinct=True),
            **_SUMS,
        )
    )


def _names_of(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """A call that was cut may have no reported name: it gets the only name that other calls of its model have."""
    reported_as: dict[str, set[str]] = defaultdict(set)
    pairs = [(row["asked"], row["reported"]) for row in rows]
    for asked, reported in pairs:
        if reported:
            reported_as[asked].add(reported)
    return {
        (asked, reported): reported or (next(iter(reported_as[asked])) if len(reported_as[asked]) == 1 else asked)
        for asked, reported in pairs
    }


def _as_books(sums: _Sums) -> Books:
    side = Side(
        requests=sums.calls,
        prompt_tokens=sums.prompt_tokens,
        completion_tokens=sums.completion_tokens,
        cache_read_tokens=sums.cache_read_tokens,
        cache_write_tokens=sums.cache_write_tokens,
        cost=sums.cost,
    )
    return Books(
        side,
        unpriced_calls=sums.unpriced_calls,
        estimated_calls=sums.estimated_calls,
        open_calls=sums.open_calls,
        beside_tokens=pico_to_usd(sums.beside_tokens_pico),
    )


def books_in_all(books: Iterable[Books]) -> Books:
    """Over all models of a day."""
    every = list(books)
    counts = ("requests", "prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens")
    side = Side(
        **{name: count_of(getattr(each.side, name) for each in every) or 0 for name in counts},
        cost=total_of(each.side.cost for each in every) or Decimal(0),
    )
    return Books(
        side,
        unpriced_calls=sum(each.unpriced_calls for each in every),
        estimated_calls=sum(each.estimated_calls for each in every),
        open_calls=sum(each.open_calls for each in every),
        beside_tokens=total_of(each.beside_tokens for each in every) or Decimal(0),
    )


def _bounds(day: date) -> tuple[datetime, datetime]:
    starts_at = datetime.combine(day, time(), UTC)
    return starts_at, starts_at + timedelta(days=1)
