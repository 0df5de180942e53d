"""Usage summaries for people, as frozen dataclasses. Read-only; every query is bounded by an index.

A day is the `local_day` of a call: the calendar day of its account, as on invoices.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from django.core.cache import cache
from django.db.models import Count, Max, Min, OuterRef, Q, Subquery, Sum

from llm.enums import FAILED_OUTCOMES, AccountStatus, UsageStatus
from llm.fields import ExactSum
from llm.models import Account, ApiKey, OpenCall, Usage
from llm.models.usage import UsageQuerySet, merge_calls

MAX_OPEN_CALLS = 1000
UNPRICED_CALLS_LOOKED_AT = 20_000

# A report that took one second is cached for twenty, so that reloading takes at most a twentieth of the database; one
# that took less than CHEAP_SECONDS is always read afresh.
CHEAP_SECONDS = 0.05
REST_FACTOR = 20
FINISHED_DAY_SECONDS = 6 * 3600
YESTERDAY_SECONDS = 300
READ_SECONDS = 0.1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """cost: USD, of priced calls only; unpriced counts the others that used tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)
    failed: int = 0
    estimated: int = 0
    unpriced: int = 0

    def __add__(self, other: UsageTotals) -> UsageTotals:
        return UsageTotals(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=self.cost + other.cost,
            failed=self.failed + other.failed,
            estimated=self.estimated + other.estimated,
            unpriced=self.unpriced + other.unpriced,
        )

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def failed_permille(self) -> int:
        """Failed calls per thousand, rounded up, so that one failure never shows as none."""
        return math.ceil(self.failed * 1000 / self.calls) if self.calls else 0


@dataclass(frozen=True, slots=True)
class NamedTotals:
    name: str
    figures: UsageTotals


@dataclass(frozen=True, slots=True)
class DayReport:
    """accounts and models: all with usage, busiest first."""

    day: date
    total: UsageTotals
    accounts: tuple[NamedTotals, ...]
    models: tuple[NamedTotals, ...]


@dataclass(frozen=True, slots=True)
class DayTotals:
    """is_known: False if the day hasn't been read yet, when its figures mean nothing."""

    day: date
    calls: int = 0
    cost: Decimal = Decimal(0)
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class UnpricedModel:
    """A model's usage without a price, within the calls that were looked at."""

    provider: str
    model: str
    calls: int
    total_tokens: int
    first_at: datetime
    last_at: datetime

    @property
    def first_day(self) -> date:
        """No later than the first call's day, wherever its account is."""
        return (self.first_at - timedelta(days=1)).date()

    def with_calls_of(self, other: UnpricedModel) -> UnpricedModel:
        """Sum of two entries of the same model."""
        return replace(
            self,
            calls=self.calls + other.calls,
            total_tokens=self.total_tokens + other.total_tokens,
            first_at=min(self.first_at, other.first_at),
            last_at=max(self.last_at, other.last_at),
        )


def day_of_most_accounts(now: datetime) -> date:
    """The calendar day in which most active accounts are: theirs, not ours, since books and invoices use it."""
    zones = Account.objects.filter(status=AccountStatus.ACTIVE).order_by()
    accounts: dict[date, int] = defaultdict(int)
    for name, number in zones.values_list("time_zone").annotate(number=Count("pk")):
        accounts[now.astimezone(ZoneInfo(name)).date()] += number
    return max(accounts, key=lambda day: (accounts[day], day), default=now.date())


def day_report(day: date) -> DayReport:
    return _remembered(f"llm:report:{day}", lambda: _read_day(day))


def daily_figures(first: date, today: DayReport) -> list[DayTotals]:
    """One entry for every day from `first` to the report's own.

    Earlier days are cached for hours. Of those not yet cached, as many are read as fit into READ_SECONDS, latest first;
    the others come with `is_known` False, and are read by later calls.
    """
    days = [first + timedelta(days=offset) for offset in range((today.day - first).days)]
    known = _finished_days(days)
    figures = [known.get(day, DayTotals(day, is_known=False)) for day in days]
    return [*figures, DayTotals(today.day, today.total.calls, today.total.cost)]


def open_calls(*, limit: int = MAX_OPEN_CALLS) -> int:
    """Calls in flight, counted up to `limit` and one more, which means "more than that"."""
    return OpenCall.objects.order_by()[: limit + 1].count()


def latest_calls(field: str) -> dict[str, Subquery]:
    """Annotations for `latest_call`, of rows to which the calls' `field` points."""
    return {
        name: Subquery(model._default_manager.filter(**{field: OuterRef("pk")}).order_by("-id").values("id")[:1])
        for name, model in (("latest_open", OpenCall), ("latest_closed", Usage))
    }


def latest_call(row: Account | ApiKey) -> UUID | None:
    """Its latest call, open or closed; None if there is none, or the row has no `latest_calls`."""
    found = (getattr(row, name, None) for name in ("latest_open", "latest_closed"))
    return max((call_id for call_id in found if call_id is not None), default=None)


def recent_calls(number: int) -> list[Usage]:
    """The latest, open ones included; newest first."""
    opened = list(OpenCall.objects.select_related("account", "api_key").order_by("-id")[:number])
    closed = Usage.objects.select_related("account", "api_key").order_by("-id")[:number]
    return merge_calls(opened, closed)[:number]


def keys_expiring(now: datetime, *, within: timedelta) -> list[ApiKey]:
    """Keys of active accounts that work now and won't after `within`, soonest first."""
    keys = ApiKey.objects.usable_at(now).filter(
        Q(expires_at__lte=now + within) | Q(revoked_at__lte=now + within), account__status=AccountStatus.ACTIVE
    )
    return list(keys.select_related("account").order_by("expires_at", "pk"))


def unpriced_models(*, looked_at: int = UNPRICED_CALLS_LOOKED_AT) -> list[UnpricedModel]:
    """Models with unpriced calls among the latest `looked_at` of each kind, most called first."""
    kinds = (Usage.objects.never_priced(), Usage.objects.cost_taken_back())
    found: dict[tuple[str, str], UnpricedModel] = {}
    for each in (model for calls in kinds for model in _unpriced_models(calls, looked_at=looked_at)):
        other = found.get((each.provider, each.model))
        found[each.provider, each.model] = each if other is None else each.with_calls_of(other)
    return sorted(found.values(), key=lambda entry: (-entry.calls, entry.provider, entry.model))


def _unpriced_models(calls: UsageQuerySet, *, looked_at: int) -> Iterator[UnpricedModel]:
    latest = calls.order_by("-id").values_list("id", flat=True)
    oldest = next(iter(latest[looked_at - 1 : looked_at]), None)
    if oldest is not None:
        calls = calls.filter(id__gte=oldest)
    # For calls whose cost was taken back, the row has only the estimate.
    tokens = Sum("prompt_tokens") + Sum("completion_tokens")
    rows = calls.order_by().values_list("provider", "upstream_model")
    figures = {"number": Count("pk"), "tokens": tokens, "first_at": Min("opened_at"), "last_at": Max("opened_at")}
    yield from (UnpricedModel(*row) for row in rows.annotate(**figures))


def busiest(groups: Iterable[tuple[str, UsageTotals]]) -> tuple[NamedTotals, ...]:
    sums: dict[str, UsageTotals] = defaultdict(UsageTotals)
    for name, figures in groups:
        sums[name] += figures
    ordered = sorted(sums.items(), key=lambda item: (-item[1].cost, -item[1].calls, item[0]))
    return tuple(NamedTotals(name, figures) for name, figures in ordered)


def _read_day(day: date) -> DayReport:
    by = ("account_id", "model")
    opened = OpenCall.objects.filter(local_day=day).order_by().values_list(*by).annotate(number=Count("pk"))
    found = [(account_id, model, UsageTotals(calls=number)) for account_id, model, number in opened]
    rows: Iterable[dict[str, Any]] = Usage.objects.filter(local_day=day).order_by().values(*by).annotate(**_SUMS)
    found += [(row["account_id"], row["model"], _figures(row)) for row in rows]
    names = Account.objects.in_bulk({account_id for account_id, _, _ in found})
    groups = [(names[account_id].name, model, figures) for account_id, model, figures in found]
    return DayReport(
        day=day,
        total=sum((figures for _, _, figures in groups), UsageTotals()),
        accounts=busiest((account, figures) for account, _, figures in groups),
        models=busiest((model, figures) for _, model, figures in groups),
    )


_CLOSED_WITH_FIGURES = Q(status__in=(UsageStatus.SETTLED, UsageStatus.ESTIMATED))
_SUMS: dict[str, Any] = {
    "sum_calls": Count("pk"),
    "sum_prompt_tokens": Sum("prompt_tokens"),
    "sum_completion_tokens": Sum("completion_tokens"),
    "sum_failed": Count("pk", filter=Q(outcome__in=FAILED_OUTCOMES)),
    "sum_estimated": Count("pk", filter=Q(status=UsageStatus.ESTIMATED)),
    "sum_unpriced": Count("pk", filter=_CLOSED_WITH_FIGURES & Q(cost=None)),
    "sum_cost": ExactSum("cost"),
}


def _figures(row: dict[str, Any]) -> UsageTotals:
    """cost: None if no call is priced."""
    figures = {name.removeprefix("sum_"): row[name] for name in _SUMS}
    return UsageTotals(**{**figures, "cost": figures["cost"] or Decimal(0)})


def _read_days(first: date, last: date) -> dict[date, DayTotals]:
    rows = (
        Usage.objects.filter(local_day__range=(first, last))
        .order_by()
        .values("local_day")
        .annotate(calls=Count("pk"), sum_cost=ExactSum("cost"))
    )
    return {row["local_day"]: DayTotals(row["local_day"], row["calls"], row["sum_cost"] or Decimal(0)) for row in rows}


def _finished_days(days: Sequence[date]) -> dict[date, DayTotals]:
    """days: in order, up to yesterday."""
    names = {day: f"llm:day:{day}" for day in days}
    kept: dict[str, DayTotals] = cache.get_many(list(names.values())) if names else {}
    known = {day: kept[name] for day, name in names.items() if name in kept}
    unread = [day for day in reversed(days) if day not in known]
    started, number = time.monotonic(), 1
    while unread and number:
        chunk, unread = unread[:number], unread[number:]
        chunk_started = time.monotonic()
        known |= _read_and_keep(chunk, yesterday=days[-1])
        now = time.monotonic()
        # One day first, then as many at once as its time allows.
        seconds_a_day = max((now - chunk_started) / len(chunk), 1e-4)
        number = max(0, int((READ_SECONDS - (now - started)) / seconds_a_day))
    return known


def _read_and_keep(days: Sequence[date], *, yesterday: date) -> dict[date, DayTotals]:
    """Yesterday is cached briefly: calls that began then, or where it is still today, may close later."""
    read = _read_days(min(days), max(days))
    figures = {day: read.get(day, DayTotals(day)) for day in days}
    for day, figure in figures.items():
        cache.set(f"llm:day:{day}", figure, YESTERDAY_SECONDS if day == yesterday else FINISHED_DAY_SECONDS)
    return figures


def _remembered(name: str, read: Callable[[], _T]) -> _T:
    """The result of `read`, cached for REST_FACTOR times as long as it took."""
    kept: _T | None = cache.get(name)
    if kept is not None:
        return kept
    started = time.monotonic()
    fresh = read()
    took = time.monotonic() - started
    if took > CHEAP_SECONDS:
        cache.set(name, fresh, math.ceil(took * REST_FACTOR))
    return fresh
