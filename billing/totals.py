"""What an invoice comes to, and how that compares with what it should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from billing.blockers import Unsettled
from billing.enums import InvoiceKind
from billing.flags import flags_of
from billing.models import BilledUsage, BillingProfile, Invoice, InvoiceLine
from billing.taxes import set_taxes, taxes_due
from llm.money import exact_sum


def set_totals(invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
    set_taxes(invoice, taxes_due(invoice, lines))
    invoice.cost_usd = exact_sum(line.cost_usd for line in lines)


def set_estimates(invoice: Invoice, usage: Sequence[BilledUsage]) -> None:
    cost = exact_sum(row.cost for row in usage)
    estimated = exact_sum(row.estimated_cost for row in usage)
    # With free models there is no cost to take a share of: calls stand in for it.
    if cost <= 0:
        cost, estimated = (Decimal(sum(getattr(row, name) for row in usage)) for name in ("calls", "estimated_calls"))
    share = int(estimated * 1000 / cost) if cost > 0 else 0
    invoice.estimated_permille = min(1000, max(0, share))


def set_comparison(
    invoice: Invoice,
    lines: Sequence[InvoiceLine],
    invoices: Iterable[Invoice],
    *,
    profile: BillingProfile,
    unsettled: Unsettled,
    is_key_new: bool,
) -> None:
    """invoices: the account's, those that are void left out."""
    earlier = {
        each.period: each
        for each in invoices
        if each.kind == InvoiceKind.REGULAR and each.currency == invoice.currency and each.period < invoice.period
    }
    previous = earlier.get(invoice.period.previous)
    invoice.previous_total = None if previous is None else previous.total
    invoice.flags = flags_of(
        invoice, lines, profile=profile, unsettled=unsettled, is_first=not earlier, is_key_new=is_key_new
    )
