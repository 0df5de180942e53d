"""Re-rating: a corrected price is a new price, and its effect on past calls is an adjustment of each.

A call is priced by the current list, at the moment when it was opened. Nothing is overwritten; an interrupted run is
simply run again, and finds only what is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from llm.books.adjusting import adjust, lock_call
from llm.books.clock import database_now
from llm.books.figures import EffectiveUsage, compute_figures
from llm.enums import AdjustmentSource, UsageStatus
from llm.models import RateSet, ReratingRun, Usage, UsageAdjustment
from llm.money import pico_to_usd
from llm.prices.catalog import Catalog, TargetName, load_catalog
from llm.prices.matching import STAR
from llm.prices.pricing import STANDARD, Cost, PriceSnapshot, known_cost

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_CHUNK = 500


@dataclass
class ReratingReport:
    """calls: those examined. changed: those whose cost or rates are different now. unpriced: those still without a
    cost.
    incomplete: those left unchanged, since an earlier release didn't record all that their price depends on.

    tokens: of the changed ones, in and out. before_pico, after_pico: the cost of the changed ones, in pico-units of
    USD. run: None for a dry run, and if nothing changed.
    """

    calls: int = 0
    changed: int = 0
    unpriced: int = 0
    incomplete: int = 0
    tokens: int = 0
    before_pico: int = 0
    after_pico: int = 0
    run: ReratingRun | None = None

    def add(self, repriced: _Repriced) -> None:
        self.calls += 1
        self.unpriced += repriced.cost is None and repriced.is_priceable
        self.incomplete += not repriced.is_priceable
        if repriced.is_changed and repriced.cost is not None:
            self.changed += 1
            self.tokens += repriced.figures.counts.total_tokens
            self.before_pico += repriced.figures.cost_pico or 0
            self.after_pico += repriced.cost.pico


def rerate(
    provider: str,
    model: str,
    *,
    first_day: date,
    last_day: date,
    reason: str,
    user: User | None = None,
    is_dry: bool = False,
    on_progress: Callable[[int], None] = lambda calls: None,
) -> ReratingReport:
    """Re-rate the closed calls of these local days, each by an adjustment if that changes anything.

    model: the provider's own name, or a pattern with one *. is_dry: only report what would change. Raises ValueError
    with a sentence.
    """
    if not reason.strip():
        raise ValueError("Give a reason.")
    if last_day < first_day:
        raise ValueError(f"{last_day} is before {first_day}.")
    report = ReratingReport()
    prices = _Prices()
    for rows in _chunks(provider, model, first_day, last_day):
        adjustments = _load_adjustments(rows)
        for row in rows:
            repriced = _reprice(row, adjustments.get(row.pk, ()), prices)
            if repriced.is_changed and not is_dry:
                report.run = report.run or _begin(provider, model, first_day, last_day, reason, user)
                if repriced.leaves_rates and repriced.price is not None:
                    # Before the books are locked, so that writers of prices and the books don't wait for each other.
                    prices.rate_set_of_free(repriced.price)
                repriced = _adjust(row.pk, prices, run=report.run)
            report.add(repriced)
        on_progress(report.calls)
    if report.run is not None:
        _finish(report.run, report)
    return report


def count_calls(provider: str, model: str, first_day: date, last_day: date) -> int:
    """How many calls `rerate` would examine."""
    return _closed_calls(provider, model, first_day, last_day).count()


def _closed_calls(provider: str, model: str, first_day: date, last_day: date) -> QuerySet[Usage]:
    return Usage.objects.filter(
        provider=provider,
        **_named(model),
        local_day__gte=first_day,
        local_day__lte=last_day,
        status__in=(UsageStatus.SETTLED, UsageStatus.ESTIMATED),
    )


def _chunks(provider: str, model: str, first_day: date, last_day: date) -> Iterator[list[Usage]]:
    calls = _closed_calls(provider, model, first_day, last_day).order_by("id")
    last: UUID | None = None
    while rows := list((calls if last is None else calls.filter(id__gt=last))[:_CHUNK]):
        last = rows[-1].pk
        yield rows


def _named(model: str) -> dict[str, str]:
    """The condition on a call. A pattern may find some more: each call is priced by its own name."""
    start, star, end = model.partition(STAR)
    if not star:
        return {"upstream_model": model}
    return {"upstream_model__istartswith": start, "upstream_model__iendswith": end}


def _load_adjustments(rows: Sequence[Usage]) -> Mapping[UUID, Sequence[UsageAdjustment]]:
    found: defaultdict[UUID, list[UsageAdjustment]] = defaultdict(list)
    for adjustment in UsageAdjustment.objects.filter(usage__in=rows).order_by("id"):
        found[adjustment.usage_id].append(adjustment)
    return found


class _Prices:
    """The current price list, and the rate sets that stand for free prices.

    A call that became free refers to such a set: with its former rates, a month couldn't tell which tokens are free.
    """

    def __init__(self) -> None:
        self.catalog: Catalog = load_catalog()
        free = RateSet.objects.filter(price__is_free=True).order_by("id")
        self._free: dict[int, int] = dict(free.values_list("price_id", "id"))

    def leaves_rates(self, figures: EffectiveUsage, price: PriceSnapshot | None) -> bool:
        """Whether the call had rates so far, and is free at this price."""
        return price is not None and price.is_free and figures.last_rate_set_id not in (None, *self._free.values())

    def rate_set_of_free(self, price: PriceSnapshot) -> int:
        """A set without rates, created if missing. This raises the catalog's version."""
        if price.id not in self._free:
            rate_set, _ = RateSet.objects.get_or_create(price_id=price.id, min_prompt_tokens=0, **STANDARD._asdict())
            self._free[price.id] = rate_set.pk
        return self._free[price.id]


@dataclass(frozen=True, slots=True)
class _Repriced:
    """A call's figures, and its current cost. cost: None if unknown.

    is_priceable: whether the books have all that the cost depends on. leaves_rates: see `_Prices`.
    """

    figures: EffectiveUsage
    cost: Cost | None
    price: PriceSnapshot | None = None
    is_priceable: bool = True
    leaves_rates: bool = False

    @property
    def is_changed(self) -> bool:
        if self.cost is None:
            return False
        is_same = self.cost.pico == self.figures.cost_pico
        return not is_same or self.leaves_rates or self.cost.rate_set_id not in (None, self.figures.rate_set_id)


def _reprice(row: Usage, adjustments: Sequence[UsageAdjustment], prices: _Prices) -> _Repriced:
    figures = compute_figures(row, adjustments)
    asked = TargetName(row.provider, row.upstream_model)
    price = prices.catalog.price_served(asked, row.reported_model, at=row.opened_at).price
    if not figures.is_complete and not (price is not None and price.is_free):
        return _Repriced(figures, None, is_priceable=False)
    cost = known_cost(figures.counts, price, figures.service)
    return _Repriced(figures, cost, price, leaves_rates=prices.leaves_rates(figures, price))


@transaction.atomic
def _adjust(usage_id: UUID, prices: _Prices, *, run: ReratingRun) -> _Repriced:
    """Compares once more, on the locked call: a decision or late settlement may have come since it was read."""
    call = lock_call(usage_id)
    repriced = _reprice(call.row, call.adjustments, prices)
    if repriced.is_changed and repriced.cost is not None:
        rate_set_id = repriced.cost.rate_set_id
        if repriced.leaves_rates and repriced.price is not None:
            rate_set_id = prices.rate_set_of_free(repriced.price)
        adjust(
            call,
            AdjustmentSource.RERATING,
            counts=repriced.figures.counts,
            cost_pico=repriced.cost.pico,
            rate_set_id=rate_set_id,
            is_billable=repriced.figures.is_billable,
            reason=run.reason,
            user=run.started_by,
            rerating=run,
        )
    return repriced


def _begin(provider: str, model: str, first_day: date, last_day: date, reason: str, user: User | None) -> ReratingRun:
    return ReratingRun.objects.create(
        provider=provider,
        model=model,
        first_day=first_day,
        last_day=last_day,
        reason=reason.strip()[:500],
        started_at=database_now(),
        started_by=user,
    )


def _finish(run: ReratingRun, report: ReratingReport) -> None:
    run.calls = report.changed
    run.cost_before, run.cost_after = pico_to_usd(report.before_pico), pico_to_usd(report.after_pico)
    run.ended_at = database_now()
    run.save()
