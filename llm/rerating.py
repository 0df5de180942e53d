"""Pricing calls anew: a corrected price is a new price, and what it changes of past calls is an adjustment of each.

A call is priced by the list as it is now, at the moment when it was opened. Nothing is ever overwritten; a run that was
cut off is simply run again, and finds only what is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from llm.books.adjusting import adjust
from llm.books.clock import database_now
from llm.books.figures import Figures, figures_of
from llm.catalog import Catalog, TargetName, load_catalog
from llm.enums import AdjustmentSource, UsageStatus
from llm.models import ReratingRun, Usage, UsageAdjustment
from llm.money import pico_to_usd
from llm.pricing import Cost, known_cost

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_CHUNK = 500


@dataclass
class ReratingReport:
    """calls: those looked at. changed: those whose cost or rates are others now. unpriced: those still without a cost.

    before_pico, after_pico: the cost of those changed, in pico-units of USD. run: None of a dry run, and where nothing
    changed.
    """

    calls: int = 0
    changed: int = 0
    unpriced: int = 0
    before_pico: int = 0
    after_pico: int = 0
    run: ReratingRun | None = None


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
    """Price the closed calls of these local days anew, each by an adjustment where that makes a difference.

    model: the provider's own name. is_dry: only tells what would change. Raises ValueError with a sentence.
    """
    if not reason.strip():
        raise ValueError("Give a reason.")
    if last_day < first_day:
        raise ValueError(f"{last_day} is before {first_day}.")
    report = ReratingReport()
    catalog = load_catalog()
    for rows in _chunks(provider, model, first_day, last_day):
        adjustments = _adjustments_of(rows)
        for row in rows:
            found = _compare(row, adjustments.get(row.pk, ()), catalog, report)
            if found is not None and not is_dry:
                report.run = report.run or _begin(provider, model, first_day, last_day, reason, user)
                _adjust(row, *found, run=report.run)
        on_progress(report.calls)
    if report.run is not None:
        _finish(report.run, report)
    return report


def _chunks(provider: str, model: str, first_day: date, last_day: date) -> Iterator[list[Usage]]:
    calls = Usage.objects.filter(
        provider=provider,
        upstream_model=model,
        local_day__gte=first_day,
        local_day__lte=last_day,
        status__in=(UsageStatus.SETTLED, UsageStatus.ESTIMATED),
    ).order_by("id")
    last: UUID | None = None
    while rows := list((calls if last is None else calls.filter(id__gt=last))[:_CHUNK]):
        last = rows[-1].pk
        yield rows


def _adjustments_of(rows: Sequence[Usage]) -> Mapping[UUID, Sequence[UsageAdjustment]]:
    found: defaultdict[UUID, list[UsageAdjustment]] = defaultdict(list)
    for adjustment in UsageAdjustment.objects.filter(usage__in=rows).order_by("id"):
        found[adjustment.usage_id].append(adjustment)
    return found


def _compare(
    row: Usage, adjustments: Sequence[UsageAdjustment], catalog: Catalog, report: ReratingReport
) -> tuple[Figures, Cost] | None:
    """The call's figures and what they cost now; None where that is what it cost before, or isn't known."""
    report.calls += 1
    figures = figures_of(row, adjustments)
    asked = TargetName(row.provider, row.upstream_model)
    price = catalog.price_served(asked, row.reported_model, at=row.opened_at).price
    cost = known_cost(figures.counts, price, figures.service)
    if cost is None:
        report.unpriced += 1
        return None
    if cost.pico == figures.cost_pico and cost.rate_set_id in (None, figures.rate_set_id):
        return None
    report.changed += 1
    report.before_pico += figures.cost_pico or 0
    report.after_pico += cost.pico
    return figures, cost


@transaction.atomic
def _adjust(row: Usage, figures: Figures, cost: Cost, *, run: ReratingRun) -> None:
    adjust(
        row.pk,
        AdjustmentSource.RERATING,
        counts=figures.counts,
        cost_pico=cost.pico,
        rate_set_id=cost.rate_set_id,
        is_billable=figures.is_billable,
        reason=run.reason,
        user=run.started_by,
        rerating=run,
    )


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
