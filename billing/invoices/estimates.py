"""What an account's month would cost under a plan's version. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.currencies import COST_CURRENCY, DECIMALS
from billing.enums import InvoiceKind, InvoiceState, LineKind
from billing.errors import NotBillableError
from billing.invoices.exchange_rates import rate_on
from billing.models import Invoice, PlanVersion
from billing.periods import BillingPeriod
from billing.plans import build_terms
from billing.rating import rate
from billing.rollup import usage_sums
from billing.types import ChargeLine
from llm.models import Account
from llm.money import exact_sum, pico_to_usd


@dataclass(frozen=True, slots=True)
class Estimate:
    """total: without tax, one-off lines and late usage. invoice: the month's, drafted or issued; None if it has none.

    billed: the same lines of that invoice, if it is in the same currency.
    """

    lines: Sequence[ChargeLine]
    currency: str
    total: Decimal
    cost_usd: Decimal
    unpriced_calls: int
    invoice: Invoice | None
    billed: Decimal | None


def estimate_month(version: PlanVersion, account: Account, period: BillingPeriod) -> Estimate:
    """Raises NotBillableError without an exchange rate, or if a fixed price lacks a meter."""
    usage = usage_sums(account.pk, period)
    currency = version.currency
    per_usd = None if currency == COST_CURRENCY else rate_on(currency, period.last_day).per_usd
    try:
        lines = rate(usage, build_terms(version), per_usd=per_usd, decimals=DECIMALS[currency])
    except ValueError as error:
        raise NotBillableError(f"The plan “{version}” doesn't match the usage: {error}.") from error
    regular = Invoice.objects.filter(account=account, period_start=period.start, kind=InvoiceKind.REGULAR)
    invoice = regular.exclude(state=InvoiceState.VOID).first()
    return Estimate(
        lines=lines,
        currency=currency,
        total=exact_sum(line.amount for line in lines),
        cost_usd=pico_to_usd(sum(sums.cost_pico for sums in usage)),
        unpriced_calls=sum(sums.unpriced_calls for sums in usage),
        invoice=invoice,
        billed=None if invoice is None or invoice.currency != currency else _billed(invoice),
    )


def _billed(invoice: Invoice) -> Decimal:
    """By the plan that it has: without late usage, one-off lines and goodwill."""
    others = (LineKind.ONE_OFF, LineKind.GOODWILL)
    lines = invoice.lines.filter(period_start=invoice.period_start).exclude(kind__in=others)
    return exact_sum(lines.values_list("amount", flat=True))
