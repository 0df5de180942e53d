"""From usage to what an invoice bills of it: its lines and the rows of usage behind them. It writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from billing.currencies import COST_CURRENCY, DECIMALS
from billing.enums import InvoiceKind
from billing.errors import NotBillableError
from billing.exchange import rate_on
from billing.late import Others, billed_lines, billed_usage, regular_of
from billing.models import BilledUsage, BillingProfile, ExchangeRate, Invoice, InvoiceLine, Plan, PlanVersion
from billing.models.rollups import SUM_FIELDS
from billing.periods import Period
from billing.plans import terms_of, version_in_force
from billing.rating import difference, rate
from billing.rollup import usage_sums
from billing.types import ChargeLine, PlanTerms, UsageSum
from llm.digests import DIGEST_FIELDS, digest_hex
from llm.money import exact_arithmetic, pico_to_usd
from llm.types import TOKEN_FIELDS

_MOST_DESCRIPTION = 300


@dataclass(frozen=True, slots=True)
class Lookups:
    """Terms that accounts share, each read once."""

    version_in_force: Callable[[Plan, Period], PlanVersion] = field(default_factory=lambda: cache(version_in_force))
    terms_of: Callable[[PlanVersion], PlanTerms] = field(default_factory=lambda: cache(terms_of))
    rate_on: Callable[[str, date], ExchangeRate] = field(default_factory=lambda: cache(rate_on))


@dataclass(frozen=True, slots=True)
class Part:
    """What an invoice bills of one period: the difference to what others billed of it."""

    period: Period
    version: PlanVersion
    lines: Sequence[ChargeLine]
    usage: Sequence[BilledUsage]


def set_terms(invoice: Invoice, profile: BillingProfile, others: Others, lookups: Lookups) -> None:
    """Plan, rate of exchange and tax as they hold now for the period. Raises NotBillableError."""
    invoice.tax_percent = profile.tax_percent
    if invoice.kind == InvoiceKind.SUPPLEMENT and (regular := regular_of(others, invoice.period)) is not None:
        invoice.plan_version = regular.plan_version
        invoice.exchange_rate, invoice.per_usd = regular.exchange_rate, regular.per_usd
        return
    version = lookups.version_in_force(profile.plan, invoice.period)
    if version.currency != invoice.currency:
        raise NotBillableError(
            f"The plan “{profile.plan}” has prices in {version.currency}, the profile bills in {invoice.currency}: "
            "give the plan a version in that currency, or change the profile."
        )
    invoice.plan_version = version
    is_exchanged = invoice.currency != COST_CURRENCY
    invoice.exchange_rate = lookups.rate_on(invoice.currency, invoice.period.last_day) if is_exchanged else None
    invoice.per_usd = None if invoice.exchange_rate is None else invoice.exchange_rate.per_usd


def parts_of(
    invoice: Invoice, usage: Sequence[UsageSum], late: Iterable[Period], others: Others, lookups: Lookups
) -> Iterator[Part]:
    """The invoice's own period first, whose usage is given, then earlier ones that have changed since they were billed.

    Raises NotBillableError.
    """
    yield _part(invoice.period, usage, invoice, others, lookups)
    if invoice.kind != InvoiceKind.REGULAR:
        return
    for period in late:
        if (regular := regular_of(others, period)) is not None:
            yield _part(period, usage_sums(invoice.account_id, period), regular, others, lookups)


def rows_of(invoice: Invoice, part: Part, cutoff_at: datetime) -> Iterator[InvoiceLine]:
    """Without positions."""
    is_late = part.period != invoice.period
    for line in part.lines:
        description = f"{part.period}: {line.description}" if is_late else line.description
        yield InvoiceLine(
            kind=line.kind,
            key=line.key,
            period_start=part.period.start,
            plan_version_id=part.version.pk,
            description=description[:_MOST_DESCRIPTION],
            provider=line.provider,
            model=line.model,
            meter=line.meter,
            quantity=line.quantity,
            unit_price=line.unit_price,
            exact_amount=line.exact_amount,
            amount=line.amount,
            residual=line.residual,
            cost_usd=pico_to_usd(line.cost_pico),
            calls=line.calls,
            digest=digest_hex(line.digest) if any(line.digest) else "",
            cutoff_at=cutoff_at,
        )


def _part(period: Period, usage: Sequence[UsageSum], under: Invoice, others: Others, lookups: Lookups) -> Part:
    """under: the invoice whose terms hold for the period."""
    decimals = DECIMALS[under.currency]
    version = under.plan_version
    try:
        lines = rate(usage, lookups.terms_of(version), per_usd=under.per_usd, decimals=decimals)
    except ValueError as error:
        raise NotBillableError(f"The plan “{version}” doesn't fit what was used: {error}.") from error
    if billed := billed_lines(others, period):
        lines = difference(lines, billed, decimals=decimals)
    with exact_arithmetic():
        return Part(period, version, lines, _unbilled(period, usage, others))


def _unbilled(period: Period, usage: Iterable[UsageSum], others: Others) -> list[BilledUsage]:
    """Rows of the usage that no other invoice bills; negative where others billed what is gone."""
    billed = billed_usage(others, period)
    now = {(each.provider, each.model, each.rate_set_id): _sums(each) for each in usage}
    rows = []
    for key in sorted({*now, *billed}, key=lambda key: (key[0], key[1], key[2] or 0)):
        sums = _subtracted(now.get(key), billed[key]) if key in billed else now[key]
        if any(sums.values()):
            provider, model, rate_set_id = key
            rows.append(
                BilledUsage(period_start=period.start, provider=provider, model=model, rate_set_id=rate_set_id, **sums)
            )
    return rows


def _sums(usage: UsageSum) -> dict[str, Any]:
    return {
        "calls": usage.calls,
        "estimated_calls": usage.estimated_calls,
        "unpriced_calls": usage.unpriced_calls,
        **{name: getattr(usage.counts, name) for name in TOKEN_FIELDS},
        "cost": pico_to_usd(usage.cost_pico),
        "estimated_cost": pico_to_usd(usage.estimated_cost_pico),
        **{name: word % 2**32 for name, word in zip(DIGEST_FIELDS, usage.digest, strict=True)},
    }


def _subtracted(now: dict[str, Any] | None, billed: dict[str, Any]) -> dict[str, Any]:
    """Digests are sums modulo 2**32: what is left of one is a digest again."""
    now = now or dict.fromkeys(SUM_FIELDS, Decimal(0))
    left = {name: now[name] - billed[name] for name in SUM_FIELDS}
    for name in SUM_FIELDS:
        if name in DIGEST_FIELDS:
            left[name] = int(left[name]) % 2**32
        elif not name.endswith("cost"):
            left[name] = int(left[name])
    return left
