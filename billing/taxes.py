"""The taxes of a document: a line has the rate of its month, and each rate is on the sum of its rounded lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.currencies import DECIMALS
from billing.models import Invoice, InvoiceLine
from llm.money import exact_sum, round_half_away


@dataclass(frozen=True, slots=True)
class Tax:
    """net: the lines at that rate, without tax."""

    percent: Decimal
    net: Decimal
    tax: Decimal


def tax_of(net: Decimal, percent: Decimal, currency: str) -> Decimal:
    """On the sum of rounded lines, rounded half away from zero to the currency's decimals."""
    return round_half_away(net * percent / 100, DECIMALS[currency])


def percent_of(line: InvoiceLine, invoice: Invoice) -> Decimal:
    """Lines of version 1 have no rate of their own: all were taxed at their invoice's."""
    return invoice.tax_percent if line.tax_percent is None else line.tax_percent


def nets_of(invoice: Invoice, lines: Iterable[InvoiceLine]) -> dict[Decimal, Decimal]:
    """Rate -> sum of its lines; the invoice's own rate first, which is there without lines too."""
    amounts: dict[Decimal, list[Decimal]] = defaultdict(list)
    for line in lines:
        amounts[percent_of(line, invoice)].append(line.amount)
    if not amounts:
        return {invoice.tax_percent: Decimal(0)}
    order = sorted(amounts, key=lambda percent: (percent != invoice.tax_percent, -percent))
    return {percent: exact_sum(amounts[percent]) for percent in order}


def taxes_due(invoice: Invoice, lines: Iterable[InvoiceLine]) -> tuple[Tax, ...]:
    """Of an invoice; a credit note gives back what was charged, see `billing.credits`."""
    nets = nets_of(invoice, lines)
    return tuple(Tax(percent, net, tax_of(net, percent, invoice.currency)) for percent, net in nets.items())


def taxes_of(invoice: Invoice) -> tuple[Tax, ...]:
    """As they stand on the document. Documents of version 1 have one rate."""
    if not invoice.taxes:
        return (Tax(invoice.tax_percent, invoice.subtotal, invoice.tax),)
    return tuple(Tax(*(Decimal(each[name]) for name in ("percent", "net", "tax"))) for each in invoice.taxes)


def set_taxes(invoice: Invoice, taxes: Sequence[Tax]) -> None:
    """Subtotal, tax and total follow."""
    invoice.taxes = [{"percent": plain(each.percent), "net": plain(each.net), "tax": plain(each.tax)} for each in taxes]
    invoice.subtotal = exact_sum(each.net for each in taxes)
    invoice.tax = exact_sum(each.tax for each in taxes)
    invoice.total = invoice.subtotal + invoice.tax


def plain(amount: Decimal) -> str:
    """Without needless zeros, so that equal amounts are equal texts."""
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text
