"""From usage to what an invoice bills of it: its lines and the rows of usage behind them. It writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from billing.currencies import COST_CURRENCY, DECIMALS
from billing.enums import InvoiceKind, LineKind
from billing.errors import NotBillableError
from billing.invoices.exchange_rates import rate_on
from billing.invoices.goodwill import goodwill_line
from billing.invoices.late_usage import (
    PriorInvoices,
    billed_lines,
    billed_usage,
    described,
    last_charge,
    regular_of,
    usage_on,
)
from billing.invoices.one_offs import OneOffs, require_currency
from billing.invoices.taxes import percent_of
from billing.models import (
    BilledUsage,
    BillingProfile,
    ExchangeRate,
    Invoice,
    InvoiceLine,
    OneOffLine,
    Plan,
    PlanVersion,
)
from billing.models.rollups import SUM_FIELDS
from billing.periods import BillingPeriod
from billing.plans import build_terms, version_in_force
from billing.rating import beside_others, difference, one_off_lines, rate
from billing.rollup import usage_sums
from billing.types import ChargeLine, PlanTerms, UsageSum
from llm.digests import DIGEST_FIELDS, digest_hex
from llm.money import exact_arithmetic, exact_sum, pico_to_usd
from llm.types import TOKEN_FIELDS


@dataclass(frozen=True, slots=True)
class Lookups:
    """What drafts are computed from beside usage: the accounts' one-off lines, and terms that several accounts share,
    each read once.
    """

    one_offs: OneOffs

    version_in_force: Callable[[Plan, BillingPeriod], PlanVersion] = field(
        default_factory=lambda: cache(version_in_force)
    )
    terms_of: Callable[[PlanVersion], PlanTerms] = field(default_factory=lambda: cache(build_terms))
    rate_on: Callable[[str, date], ExchangeRate] = field(default_factory=lambda: cache(rate_on))


@dataclass(frozen=True, slots=True)
class MonthTerms:
    """The terms that a month is charged under. per_usd: None in USD."""

    version: PlanVersion
    per_usd: Decimal | None
    tax_percent: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    """The difference between what a period costs now and what was billed for it (`billed`)."""

    period: BillingPeriod
    terms: MonthTerms
    lines: Sequence[ChargeLine]
    usage: Sequence[BilledUsage]
    billed: Sequence[ChargeLine] = ()

    @property
    def net(self) -> Decimal:
        """Without tax."""
        return exact_sum(line.amount for line in self.lines)

    @property
    def is_reduction(self) -> bool:
        """Given back by a credit note, or held while goodwill already covers it: an invoice never gives money back."""
        usage = exact_sum(line.amount for line in self.lines if line.kind != LineKind.GOODWILL)
        return self.net < 0 or (self.net == 0 and usage < 0)


def set_terms(invoice: Invoice, profile: BillingProfile, others: PriorInvoices, lookups: Lookups) -> None:
    """Set plan, exchange rate and tax: the current ones of the invoice's own month, for a supplement those its month
    had.

    Raises NotBillableError.
    """
    if invoice.kind == InvoiceKind.SUPPLEMENT:
        terms = terms_of_month(invoice.period, others, profile, lookups)
    else:
        terms = _terms_now(invoice.period, invoice.currency, profile, lookups)
    invoice.plan_version, invoice.tax_percent, invoice.per_usd = terms.version, terms.tax_percent, terms.per_usd
    is_exchanged = terms.per_usd is not None
    invoice.exchange_rate = _exchange_rate(invoice, lookups) if is_exchanged else None


def terms_of_month(
    period: BillingPeriod, others: PriorInvoices, profile: BillingProfile, lookups: Lookups
) -> MonthTerms:
    """The terms of the month's invoice or, if it was corrected since, those under which it was billed again.

    Until it is billed again, the current terms, if they are in its currency. Raises NotBillableError.
    """
    is_corrected = period in others.corrected
    regular = regular_of(others, period)
    if is_corrected or regular is None:
        line = last_charge(others, period)
        if line is not None:
            return MonthTerms(line.plan_version, _per_usd_of(line), percent_of(line, line.invoice))
    if regular is None or (is_corrected and profile.currency_in(period) == others.currency):
        return _terms_now(period, others.currency, profile, lookups)
    return MonthTerms(regular.plan_version, regular.per_usd, regular.tax_percent)


def rate_parts(
    invoice: Invoice,
    usage: Sequence[UsageSum],
    late: Iterable[BillingPeriod],
    others: PriorInvoices,
    profile: BillingProfile,
    lookups: Lookups,
) -> Iterator[Part]:
    """The invoice's own period first, whose usage is given, then earlier ones that now cost more than was billed.

    Raises NotBillableError.
    """
    own = MonthTerms(invoice.plan_version, invoice.per_usd, invoice.tax_percent)
    one_offs = _one_offs(invoice.account_id, invoice.period, others, lookups, may_skip=False)
    part = _part(invoice.period, usage, own, others, one_offs, lookups)
    if not part.is_reduction:
        is_whole = invoice.kind == InvoiceKind.REGULAR
        yield replace(part, lines=beside_others(part.lines, part.billed)) if is_whole else part
    elif not part.billed:
        raise NotBillableError(
            f"{invoice.period} comes to {part.net:f} {invoice.currency}, which is negative: check the "
            "corrections of its calls."
        )
    if invoice.kind != InvoiceKind.REGULAR:
        return
    for period in late:
        part = part_of_month(invoice.account_id, period, others, profile, lookups)
        if not part.is_reduction:
            yield part


def part_of_month(
    account_id: int, period: BillingPeriod, others: PriorInvoices, profile: BillingProfile, lookups: Lookups
) -> Part:
    """A month that was billed before. Raises NotBillableError."""
    terms = terms_of_month(period, others, profile, lookups)
    is_moving = period in others.corrected and others.corrected[period]
    one_offs = _one_offs(account_id, period, others, lookups, may_skip=not is_moving)
    return _part(period, usage_sums(account_id, period), terms, others, one_offs, lookups)


def _one_offs(
    account_id: int, period: BillingPeriod, others: PriorInvoices, lookups: Lookups, *, may_skip: bool
) -> Sequence[OneOffLine]:
    """Those in the currency of these documents. may_skip: whether other documents may bill those in other currencies.

    Raises NotBillableError.
    """
    found = lookups.one_offs.get((account_id, period.start), ())
    if not may_skip:
        require_currency(found, others.currency)
    return [each for each in found if each.currency == others.currency]


def build_rows(invoice: Invoice, part: Part, cutoff_at: datetime) -> Iterator[InvoiceLine]:
    """The lines, without positions yet."""
    for line in part.lines:
        yield build_row(invoice, line, part.period, part.terms, cutoff_at=cutoff_at)


def build_row(
    invoice: Invoice, line: ChargeLine, period: BillingPeriod, terms: MonthTerms, *, cutoff_at: datetime | None
) -> InvoiceLine:
    """One line, without its position yet."""
    return InvoiceLine(
        kind=line.kind,
        key=line.key,
        period_start=period.start,
        plan_version_id=terms.version.pk,
        tax_percent=terms.tax_percent if line.tax_percent is None else line.tax_percent,
        per_usd=terms.per_usd,
        description=described(line.description, period, invoice),
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


def _part(
    period: BillingPeriod,
    usage: Sequence[UsageSum],
    terms: MonthTerms,
    others: PriorInvoices,
    one_offs: Iterable[OneOffLine],
    lookups: Lookups,
) -> Part:
    decimals, billed = DECIMALS[terms.version.currency], billed_lines(others, period)
    try:
        plan_terms = lookups.terms_of(terms.version)
        lines = rate(usage, plan_terms, per_usd=terms.per_usd, decimals=decimals, billed=billed)
    except ValueError as error:
        raise NotBillableError(f"The plan “{terms.version}” doesn't match the usage: {error}.") from error
    lines = beside_plan(lines, period, terms, others, one_offs)
    if billed:
        lines = difference(lines, billed, decimals=decimals)
    with exact_arithmetic():
        return Part(period, terms, lines, _unbilled(period, usage, others), billed)


def beside_plan(
    lines: Sequence[ChargeLine],
    period: BillingPeriod,
    terms: MonthTerms,
    others: PriorInvoices,
    one_offs: Iterable[OneOffLine],
) -> tuple[ChargeLine, ...]:
    """The month's lines under its plan, then those that staff added, then the one for goodwill."""
    decimals = DECIMALS[others.currency]
    added = (each.as_rated for each in one_offs)
    lines = (*lines, *one_off_lines(lines, added, tax_percent=terms.tax_percent, decimals=decimals))
    return (*lines, *goodwill_line(lines, period, others, per_usd=terms.per_usd, decimals=decimals))


def _terms_now(period: BillingPeriod, currency: str, profile: BillingProfile, lookups: Lookups) -> MonthTerms:
    plan = profile.plan_in(period)
    version = lookups.version_in_force(plan, period)
    if version.currency != currency:
        raise NotBillableError(
            f"The plan “{plan}” has prices in {version.currency}, the profile bills in {currency}: "
            "give the plan a version in that currency, or change the profile."
        )
    per_usd = None if currency == COST_CURRENCY else lookups.rate_on(currency, period.last_day).per_usd
    return MonthTerms(version, per_usd, profile.tax_percent)


def _per_usd_of(line: InvoiceLine) -> Decimal | None:
    """Lines of version 1 don't state a rate: their month was charged at their invoice's."""
    return line.invoice.per_usd if line.per_usd is None else line.per_usd


def _exchange_rate(invoice: Invoice, lookups: Lookups) -> ExchangeRate:
    """The row that the rate was taken from."""
    found = lookups.rate_on(invoice.currency, invoice.period.last_day)
    if found.per_usd == invoice.per_usd:
        return found
    rates = ExchangeRate.objects.filter(currency=invoice.currency, on__lte=invoice.period.last_day)
    return next((rate for rate in rates.order_by("-on", "-id") if rate.per_usd == invoice.per_usd), found)


def unbilled_rows(documents: Sequence[Invoice]) -> list[BilledUsage]:
    """The usage that these documents bill, negated."""
    starts = BilledUsage.objects.filter(invoice__in=documents).order_by().values_list("period_start", flat=True)
    return [
        BilledUsage(period_start=start, provider=provider, model=model, rate_set_id=rate_set_id, **sums)
        for start in sorted(set(starts.distinct()))
        for (provider, model, rate_set_id), billed in usage_on([each.pk for each in documents], start).items()
        if any((sums := _subtracted(None, billed)).values())
    ]


def _unbilled(period: BillingPeriod, usage: Iterable[UsageSum], others: PriorInvoices) -> list[BilledUsage]:
    """Usage that no other invoice bills; negative where others billed usage that is gone."""
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
    """Digests are sums modulo 2**32, so a difference of digests is a digest too."""
    now = now or dict.fromkeys(SUM_FIELDS, Decimal(0))
    left = {name: now[name] - billed[name] for name in SUM_FIELDS}
    for name in SUM_FIELDS:
        if name in DIGEST_FIELDS:
            left[name] = int(left[name]) % 2**32
        elif not name.endswith("cost"):
            left[name] = int(left[name])
    return left
