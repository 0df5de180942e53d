"""The calls behind a line of an invoice, and their sums, counted from the books.

They are taken as of the invoice's cutoff, however they were corrected since. If the line's key is on other invoices
too, as with late usage, they are the calls that those hadn't billed when it was made, whatever became of them since
(see `billing.invoices.states`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import reduce
from operator import add
from typing import Any

from django.db.models import (
    BigIntegerField,
    Case,
    F,
    IntegerField,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact

from billing.invoices.billed_calls import from_books
from billing.invoices.states import count_states
from billing.models import Invoice, InvoiceLine
from billing.models.rollups import SUM_FIELDS
from billing.periods import BillingPeriod
from billing.plans import build_terms
from billing.rating import charge_per_usd, rate_sets_of_line
from billing.rating.lines import basis_of
from billing.rollup import load_rate_sets
from billing.types import UsageSum
from llm.enums import UsageStatus
from llm.models import Usage, UsageAdjustment
from llm.money import exact_arithmetic, pico_to_usd, usd_to_pico
from llm.types import COST_UNKNOWN, TOKEN_FIELDS, TokenCounts

_CLOSED = (UsageStatus.SETTLED, UsageStatus.ESTIMATED)


@dataclass(frozen=True, slots=True)
class LineTotal:
    """quantity: in units of the line's meter; None if it has none. cost_usd: what we pay for it."""

    calls: int
    quantity: int | None
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class LineCalls:
    """counted: sums over the calls. said: the line's own figures.

    calls: with their adjustments as of the cutoff. A call that another invoice billed and that is no longer billable is
    included too, since the line takes it back.
    """

    calls: QuerySet[Usage]
    counted: LineTotal
    said: LineTotal

    @property
    def agrees(self) -> bool:
        return self.counted == self.said


def has_calls(line: InvoiceLine) -> bool:
    """Whether the line stands for calls: credits and charges beside usage don't."""
    return line.calls > 0 and bool(line.model) and line.invoice.cutoff_at is not None


def calls_of_line(line: InvoiceLine) -> LineCalls:
    """line: one for which `has_calls` is true."""
    parts = list(_find_parts(line))
    said = LineTotal(line.calls, line.quantity, line.cost_usd)
    return LineCalls(_calls(line, parts), _counted(line, parts), said)


@dataclass(frozen=True, slots=True)
class _Part:
    """Usage of the line as one document billed it, and how often it counts: 1, or -1 where it is subtracted."""

    cutoff_at: datetime
    times: int
    calls: int
    rate_sets: _Shares


def _find_parts(line: InvoiceLine) -> Iterator[_Part]:
    """For each document at its own terms: the same price can come from another cost."""
    lines = {each.invoice_id: each for each in _lines_with_usage(line).order_by("-position")} | {line.invoice_id: line}
    for state, times in count_states(line.invoice, Invoice.objects.filter(pk__in=lines)).items():
        usage = _usage_at(line, state.cutoff_at)
        rate_sets = _rate_sets_of(lines[state.document_id], usage)
        calls = sum(sums.calls for sums in usage if sums.rate_set_id in rate_sets)
        yield _Part(state.cutoff_at, times, calls, rate_sets)


def _lines_with_usage(line: InvoiceLine) -> QuerySet[InvoiceLine]:
    """Lines with usage of the same key and month; goodwill and credits of money leave the usage billed."""
    invoice = line.invoice
    documents = Invoice.objects.filter(account=invoice.account_id, currency=invoice.currency)
    money_alone = Q(calls=0, cost_usd=0) & (Q(quantity=None) | Q(quantity=0))
    lines = InvoiceLine.objects.filter(invoice__in=documents, period_start=line.period_start, key=line.key)
    return lines.exclude(money_alone).select_related("invoice", "plan_version")


def _counted(line: InvoiceLine, parts: Iterable[_Part]) -> LineTotal:
    parts = list(parts)
    calls = sum(part.times * part.calls for part in parts)
    if not basis_of(line.key).startswith("cost"):
        # Tiers and fallbacks divide the model's tokens and cost among its lines, so the line's own figures are used.
        return LineTotal(calls, line.quantity, line.cost_usd)
    shares = [(part.times, *share) for part in parts for share in part.rate_sets.values()]
    quantity = None if line.quantity is None else sum(times * quantity for times, quantity, _ in shares)
    return LineTotal(calls, quantity, pico_to_usd(sum(times * cost for times, _, cost in shares)))


def _usage_at(line: InvoiceLine, cutoff: datetime) -> list[UsageSum]:
    """The model's usage of the month as on the books at that moment, by rate set."""
    found: dict[int, dict[str, int]] = {}
    for detail in from_books(line.invoice.account_id, BillingPeriod(line.period_start), cutoff):
        if (detail.key.provider, detail.key.model) == (line.provider, line.model):
            sums = found.setdefault(detail.key.rate_set_id, dict.fromkeys(("cost", "unpriced_calls", *_COUNTED), 0))
            row = dict(zip(SUM_FIELDS, detail.sums, strict=True))
            sums["cost"] += usd_to_pico(row["cost"])
            for name in ("unpriced_calls", *_COUNTED):
                sums[name] += row[name]
    rates = load_rate_sets(found)
    return [
        UsageSum(
            provider=line.provider,
            model=line.model,
            rate_set_id=rate_set_id or None,
            calls=sums["calls"],
            counts=_counts(sums),
            cost_pico=sums["cost"],
            rates=rates[rate_set_id].rates if rate_set_id in rates else {},
            unpriced_calls=sums["unpriced_calls"],
        )
        for rate_set_id, sums in found.items()
    ]


def _counts(sums: Mapping[str, int]) -> TokenCounts:
    tokens: dict[str, Any] = {name: sums[name] for name in TOKEN_FIELDS}
    return TokenCounts(**tokens)


_COUNTED = ("calls", *TOKEN_FIELDS)
_Shares = Mapping[int | None, tuple[int, int]]


def _rate_sets_of(line: InvoiceLine, usage: list[UsageSum]) -> _Shares:
    """At a fixed price a line stands for all calls of its model, whatever they cost us; so does its cost."""
    basis = basis_of(line.key)
    if not basis.startswith("cost"):
        return {sums.rate_set_id: (0, sums.cost_pico) for sums in usage}
    per_usd = line.invoice.per_usd if line.per_usd is None else line.per_usd
    with exact_arithmetic():
        charge = charge_per_usd(build_terms(line.plan_version), per_usd)
        return rate_sets_of_line(usage, meter=line.meter, basis=basis, charge_per_usd=charge)


_AWAY = -1
"""Instead of a call's last correction: the call wasn't billed at these rates at that moment."""


def _calls(line: InvoiceLine, parts: Sequence[_Part]) -> QuerySet[Usage]:
    """The calls that remain after subtracting those of negative parts; latest first."""
    period, cutoff = BillingPeriod(line.period_start), line.invoice.cutoff_at
    calls: QuerySet[Usage] = Usage.objects.near_days(period.start, period.last_day).filter(
        account=line.invoice.account_id,
        provider=line.provider,
        model=line.model,
        local_day__range=(period.start, period.last_day),
        status__in=_CLOSED,
    )
    for number, part in enumerate(parts):
        calls = _with_form(calls, f"form_{number}", part)
    calls = calls.filter(_is_left(parts))
    adjustments = UsageAdjustment.objects.filter(recorded_at__lte=cutoff)
    known = Prefetch("adjustments", queryset=adjustments.select_related("decided_by").order_by("id"))
    return calls.select_related("account", "api_key").prefetch_related(known).order_by("-id")


def _with_form(calls: QuerySet[Usage], name: str, part: _Part) -> QuerySet[Usage]:
    """Adds the version of the call that the part has: the id of its last correction by then, 0 for none, or _AWAY."""
    known = UsageAdjustment.objects.filter(usage=OuterRef("pk"), recorded_at__lte=part.cutoff_at).order_by("-id")
    rate_sets = [each for each in part.rate_sets if each is not None]
    # A call whose cost was taken back counts as one without rates, whatever rates had priced it.
    is_taken_back = Q(**{f"{name}_flags__contains": COST_UNKNOWN, f"{name}_flags__isnull": False})
    is_at_rates = Q(**{f"{name}_rates__in": rate_sets}) & ~is_taken_back
    if None in part.rate_sets:
        is_at_rates |= Q(**{f"{name}_rates": None}) | is_taken_back
    is_billed = Q(recorded_at__lte=part.cutoff_at, **{f"{name}_billable": True}) & is_at_rates
    return calls.alias(
        **{
            f"{name}_billable": Coalesce(Subquery(known.values("is_billable")[:1]), F("is_billable")),
            f"{name}_rates": Coalesce(
                Subquery(known.filter(rate_set__isnull=False).values("rate_set_id")[:1]),
                F("rate_set_id"),
                output_field=BigIntegerField(),
            ),
            f"{name}_flags": Subquery(known.filter(digest_version__gt=1).values("flags")[:1]),
        }
    ).alias(
        **{
            name: Case(
                When(is_billed, then=Coalesce(Subquery(known.values("id")[:1]), Value(0))),
                default=Value(_AWAY),
                output_field=BigIntegerField(),
            )
        }
    )


def _is_left(parts: Sequence[_Part]) -> Q:
    """Whether some version of the call counts a nonzero number of times."""
    is_left = Q(pk=None)
    for number in range(len(parts)):
        same = [
            Case(When(Q(**{f"form_{other}": F(f"form_{number}")}), then=Value(part.times)), default=Value(0))
            for other, part in enumerate(parts)
        ]
        times = reduce(add, same, Value(0, output_field=IntegerField()))
        is_left |= ~Q(**{f"form_{number}": _AWAY}) & ~Q(Exact(times, 0))
    return is_left
