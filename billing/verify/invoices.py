"""What an invoice says of itself: its digest, its sums, its taxes, its course. No usage is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from billing.content import content_digest
from billing.currencies import DECIMALS
from billing.enums import InvoiceKind, InvoiceState
from billing.models import Invoice, InvoiceLine
from billing.rating.lines import price_of
from billing.taxes import tax_of, taxes_due, taxes_of
from llm.money import exact_arithmetic, exact_sum, round_half_away


def problems_of_sums(invoice: Invoice) -> Iterator[str]:
    lines = list(invoice.lines.order_by("position"))
    if content_digest(invoice, lines) != invoice.content_digest:
        yield "what stands there is not what was submitted"
    for line in lines:
        yield from _problems_of_line(line, DECIMALS[invoice.currency], is_reduction=invoice.is_reduction)
    subtotal = exact_sum(line.amount for line in lines)
    if subtotal != invoice.subtotal:
        yield f"its lines come to {subtotal:f}, its subtotal is {invoice.subtotal:f}"
    if invoice.content_version == 1:
        yield from _problems_of_one_tax(invoice)
    else:
        yield from _problems_of_taxes(invoice, lines)
    if invoice.total != invoice.subtotal + invoice.tax:
        yield f"its total is {invoice.total:f}"


def _problems_of_one_tax(invoice: Invoice) -> Iterator[str]:
    """Version 1 had one rate for all lines."""
    tax = tax_of(invoice.subtotal, invoice.tax_percent, invoice.currency)
    if invoice.kind != InvoiceKind.CREDIT_NOTE and invoice.tax != tax:
        yield f"its tax is {invoice.tax:f}"


def _problems_of_taxes(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[str]:
    """A credit note gives back what is left of a tax, which rounding may have made another than its rate."""
    found, due = taxes_of(invoice), {each.percent: each for each in taxes_due(invoice, lines)}
    if exact_sum(each.tax for each in found) != invoice.tax:
        yield f"its tax is {invoice.tax:f}"
    if {each.percent: each.net for each in found} != {percent: each.net for percent, each in due.items()}:
        yield "its taxes are not of what its lines come to"
    elif invoice.kind != InvoiceKind.CREDIT_NOTE:
        for each in found:
            if each.tax != due[each.percent].tax:
                yield f"its tax at {each.percent:f} % is {each.tax:f}, it should be {due[each.percent].tax:f}"


def _problems_of_line(line: InvoiceLine, decimals: int, *, is_reduction: bool) -> Iterator[str]:
    """A reduction may give back a little less than its lines rounded by themselves: never more than was charged."""
    rounded = round_half_away(line.exact_amount, decimals)
    if line.exact_amount != exact_sum((line.amount, line.residual)):
        yield f"line {line.position} is {line.amount:f} plus {line.residual:f}, not {line.exact_amount:f}"
    elif line.amount != rounded and not (is_reduction and line.amount > rounded):
        yield f"line {line.position} rounds {line.exact_amount:f} to {line.amount:f}"
    if line.unit_price is None or line.quantity is None:
        return
    with exact_arithmetic():
        exact = price_of(line.quantity, line.unit_price)
    if exact != line.exact_amount:
        yield (
            f"line {line.position} charges {line.exact_amount:f} for {line.quantity:,}, "
            f"which at its unit price of {line.unit_price:f} come to {exact:f}"
        )


def problems_of_course(invoice: Invoice) -> Iterator[str]:
    events = list(invoice.events.order_by("id").values_list("to_state", flat=True))
    if not events or events[-1] != invoice.state:
        yield "its history does not end in the state that it is in"
    if invoice.kind == InvoiceKind.CREDIT_NOTE and invoice.original is not None:
        notes = invoice.original.credit_notes.exclude(state=InvoiceState.VOID)
        credited = exact_sum(notes.values_list("total", flat=True))
        if invoice.original.total + credited < 0 <= invoice.original.total:
            yield f"its credit notes give back {-credited:f}, more than the invoice's {invoice.original.total:f}"
        yield from _problems_of_credited_taxes(invoice.original, list(notes))


def _problems_of_credited_taxes(original: Invoice, notes: Sequence[Invoice]) -> Iterator[str]:
    """Negative invoices are of version 1, which had no such bound."""
    charged = {each.percent: each.tax for each in taxes_of(original)} if original.total >= 0 else {}
    for percent, tax in charged.items():
        back = -exact_sum(each.tax for note in notes for each in taxes_of(note) if each.percent == percent)
        if back > max(tax, Decimal(0)):
            yield f"its credit notes give back {back:f} of the invoice's {tax:f} of tax at {percent:f} %"
