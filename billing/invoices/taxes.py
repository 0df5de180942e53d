"""The taxes of a document: a line has the rate of its month, and a rate applies to the sum of its rounded lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

from billing.currencies import DECIMALS
from billing.models import Invoice, InvoiceLine
from llm.money import exact_arithmetic, exact_sum, round_half_away


@dataclass(frozen=True, slots=True)
class Tax:
    """net: sum of the lines at that rate, without tax."""

    percent: Decimal
    net: Decimal
    tax: Decimal


def tax_of(net: Decimal, percent: Decimal, currency: str) -> Decimal:
    """Tax on a sum of rounded lines, rounded half away from zero to the currency's decimals."""
    return round_half_away(net * percent / 100, DECIMALS[currency])


def percent_of(line: InvoiceLine, invoice: Invoice) -> Decimal:
    """Lines of version 1 have no rate of their own: all were taxed at their invoice's."""
    return invoice.tax_percent if line.tax_percent is None else line.tax_percent


def nets_of(invoice: Invoice, lines: Iterable[InvoiceLine]) -> dict[Decimal, Decimal]:
    """Rate -> sum of its lines; the invoice's own rate first, even without lines."""
    amounts: dict[Decimal, list[Decimal]] = defaultdict(list)
    for line in lines:
        amounts[percent_of(line, invoice)].append(line.amount)
    if not amounts:
        return {invoice.tax_percent: Decimal(0)}
    order = sorted(amounts, key=lambda percent: (percent != invoice.tax_percent, -percent))
    return {percent: exact_sum(amounts[percent]) for percent in order}


def taxes_due(invoice: Invoice, lines: Iterable[InvoiceLine]) -> tuple[Tax, ...]:
    """Taxes of an invoice. A credit note gives back what was charged, see `billing.invoices.credit_notes`."""
    nets = nets_of(invoice, lines)
    return tuple(Tax(percent, net, tax_of(net, percent, invoice.currency)) for percent, net in nets.items())


def taxes_of(invoice: Invoice) -> tuple[Tax, ...]:
    """As stated on the document. Documents of version 1 have one rate."""
    if not invoice.taxes:
        return (Tax(invoice.tax_percent, invoice.subtotal, invoice.tax),)
    return tuple(Tax(*(Decimal(each[name]) for name in ("percent", "net", "tax"))) for each in invoice.taxes)


def tax_by_line(invoice: Invoice, lines: Sequence[InvoiceLine]) -> list[Decimal]:
    """Each line's share, so that the lines of a rate add up to its tax on the document: by largest remainder.

    Each share is the line's exact tax, rounded up or down; on credit notes that give back what is left of an invoice's
    tax, they may deviate more. Lines with amount 0 get none if others have an amount.
    """
    decimals = DECIMALS[invoice.currency]
    shares = [Decimal(0).scaleb(-decimals)] * len(lines)
    with exact_arithmetic():
        for each in taxes_of(invoice):
            at_rate = [index for index, line in enumerate(lines) if percent_of(line, invoice) == each.percent]
            places = [index for index in at_rate if lines[index].amount] or at_rate
            if places:
                due = [lines[index].amount * each.percent / 100 for index in places]
                for index, share in zip(places, _adding_up(due, each.tax, decimals), strict=True):
                    shares[index] = share
    return shares


def _adding_up(exact: Sequence[Decimal], total: Decimal, decimals: int) -> list[Decimal]:
    """Rounded numbers near the exact ones that add up to the total; among equals, earlier ones are adjusted first.

    Crediting a whole invoice gives back each line's tax exactly.
    """
    sign = -1 if total < 0 else 1
    units = [sign * amount.scaleb(decimals) for amount in exact]
    found = [int(amount.to_integral_value(ROUND_FLOOR)) for amount in units]
    missing = sign * int(total.scaleb(decimals)) - sum(found)
    by_remainder = sorted(range(len(units)), key=lambda index: found[index] - units[index])
    order, step = (by_remainder, 1) if missing > 0 else (by_remainder[::-1], -1)
    for place in range(abs(missing)):
        found[order[place % len(order)]] += step
    return [Decimal(sign * amount).scaleb(-decimals) for amount in found]


def set_taxes(invoice: Invoice, taxes: Sequence[Tax]) -> None:
    """Set the taxes; subtotal, tax and total follow."""
    invoice.taxes = [{"percent": plain(each.percent), "net": plain(each.net), "tax": plain(each.tax)} for each in taxes]
    invoice.subtotal = exact_sum(each.net for each in taxes)
    invoice.tax = exact_sum(each.tax for each in taxes)
    invoice.total = invoice.subtotal + invoice.tax


def plain(amount: Decimal) -> str:
    """Without trailing zeros, so that equal amounts are equal texts."""
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text
