"""An invoice's own consistency: its digest, sums, taxes and history. No usage is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

from billing.currencies import DECIMALS, format_money
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.invoices.digests import content_digest, issue_digest
from billing.invoices.parties import bill_to_of
from billing.invoices.payments import balance_of
from billing.invoices.taxes import tax_of, taxes_due, taxes_of
from billing.models import Invoice, InvoiceEvent, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.rating.lines import price_of
from llm.money import exact_arithmetic, exact_sum, round_half_away


def problems_of_sums(invoice: Invoice) -> Iterator[str]:
    lines = list(invoice.lines.order_by("position"))
    if content_digest(invoice, lines) != invoice.content_digest:
        yield "its content no longer matches the submitted digest"
    for line in lines:
        yield from _problems_of_line(line, DECIMALS[invoice.currency], invoice)
    subtotal = exact_sum(line.amount for line in lines)
    if subtotal != invoice.subtotal:
        yield f"its lines come to {subtotal:f}, but its subtotal is {invoice.subtotal:f}"
    if invoice.content_version == 1:
        yield from _problems_of_one_tax(invoice)
    else:
        yield from _problems_of_taxes(invoice, lines)
    if invoice.total != invoice.subtotal + invoice.tax:
        yield f"its total is {invoice.total:f}, but its subtotal and tax come to {invoice.subtotal + invoice.tax:f}"


def _problems_of_one_tax(invoice: Invoice) -> Iterator[str]:
    """Version 1 had one rate for all lines."""
    tax = tax_of(invoice.subtotal, invoice.tax_percent, invoice.currency)
    if invoice.kind != InvoiceKind.CREDIT_NOTE and invoice.tax != tax:
        yield f"its tax is {invoice.tax:f}, but should be {tax:f}"


def _problems_of_taxes(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[str]:
    """A credit note gives back what is left of a tax, which rounding may have made differ from its rate."""
    found, due = taxes_of(invoice), {each.percent: each for each in taxes_due(invoice, lines)}
    if (tax := exact_sum(each.tax for each in found)) != invoice.tax:
        yield f"its tax is {invoice.tax:f}, but its taxes come to {tax:f}"
    if {each.percent: each.net for each in found} != {percent: each.net for percent, each in due.items()}:
        yield "its taxes don't match the sum of its lines"
    elif invoice.kind != InvoiceKind.CREDIT_NOTE:
        for each in found:
            if each.tax != due[each.percent].tax:
                yield f"its tax at {each.percent:f} % is {each.tax:f}, but should be {due[each.percent].tax:f}"


def _problems_of_line(line: InvoiceLine, decimals: int, invoice: Invoice) -> Iterator[str]:
    rounded = round_half_away(line.exact_amount, decimals)
    if line.exact_amount != exact_sum((line.amount, line.residual)):
        yield f"line {line.position} is {line.amount:f} plus {line.residual:f}, not {line.exact_amount:f}"
    elif line.amount != rounded and not _may_round_otherwise(line, rounded, decimals, invoice):
        yield f"line {line.position} rounds {line.exact_amount:f} to {line.amount:f}, not {rounded:f}"
    if line.unit_price is None or line.quantity is None:
        return
    with exact_arithmetic():
        exact = price_of(line.quantity, line.unit_price)
    if exact != line.exact_amount:
        yield (
            f"line {line.position} charges {line.exact_amount:f} for {line.quantity:,}, "
            f"which at its unit price of {line.unit_price:f} come to {exact:f}"
        )


def _may_round_otherwise(line: InvoiceLine, rounded: Decimal, decimals: int, invoice: Invoice) -> bool:
    """What was billed of the same before counts as printed, so that all of it adds up to its amount, rounded once.

    A reduction may give back slightly less: never more than was charged.
    """
    if invoice.is_reduction and line.amount > rounded:
        return True
    before = Invoice.objects.charging().filter(
        account=invoice.account_id, currency=invoice.currency, submitted_at__lt=invoice.submitted_at
    )
    lines = InvoiceLine.objects.filter(invoice__in=before, period_start=line.period_start, key=line.key)
    return abs(exact_sum((line.amount, -rounded))) <= Decimal(lines.count()).scaleb(-decimals)


def problems_of_course(invoice: Invoice) -> Iterator[str]:
    events = list(invoice.events.order_by("id"))
    if not events or events[-1].to_state != invoice.state:
        yield "its history does not end in its current state"
    yield from _problems_of_history(invoice, events)
    yield from _problems_of_exchange(invoice)
    yield from _problems_of_payment(invoice)
    if invoice.kind == InvoiceKind.CREDIT_NOTE and invoice.original is not None:
        notes = invoice.original.credit_notes.exclude(state=InvoiceState.VOID)
        credited = exact_sum(notes.values_list("total", flat=True))
        if invoice.original.total + credited < 0 <= invoice.original.total:
            yield f"its credit notes give back {-credited:f}, more than the invoice's {invoice.original.total:f}"
        yield from _problems_of_credited_taxes(invoice.original, list(notes))


def _problems_of_payment(invoice: Invoice) -> Iterator[str]:
    """A credit note issued since may have left less to pay, but no invoice is paid while something is outstanding."""
    left = balance_of(invoice).outstanding
    if invoice.state == InvoiceState.PAID and invoice.kind != InvoiceKind.CREDIT_NOTE and left > 0:
        yield f"it is marked as paid, but {format_money(left, invoice.currency)} {invoice.currency} are outstanding"


def _problems_of_credited_taxes(original: Invoice, notes: Sequence[Invoice]) -> Iterator[str]:
    """Negative invoices are of version 1, which had no such bound."""
    charged = {each.percent: each.tax for each in taxes_of(original)} if original.total >= 0 else {}
    for percent, tax in charged.items():
        back = -exact_sum(each.tax for note in notes for each in taxes_of(note) if each.percent == percent)
        if back > max(tax, Decimal(0)):
            yield f"its credit notes give back {back:f} of the invoice's {tax:f} of tax at {percent:f} %"


def _problems_of_history(invoice: Invoice, events: Sequence[InvoiceEvent]) -> Iterator[str]:
    """Compared with the digests in its history, from its last submission and from its issue."""
    submitted = [number for number, event in enumerate(events) if event.action == InvoiceAction.SUBMIT]
    since = events[submitted[-1] :] if submitted else events
    if {event.content_digest for event in since} != {invoice.content_digest}:
        yield "its content no longer matches its history"
    if invoice.state not in FINAL_STATES:
        return
    digests = [event.issue_digest for event in events if event.issue_digest]
    if digests and digests[-1] != issue_digest(invoice):
        yield "its number or its dates don't match its history"
    elif not digests:
        yield from _problems_of_dates(invoice, events)


def _problems_of_dates(invoice: Invoice, events: Sequence[InvoiceEvent]) -> Iterator[str]:
    """For invoices issued before the history had a digest of dates; the zone may shift the day by one."""
    issued = next((event.at.date() for event in events if event.action == InvoiceAction.ISSUE), None)
    if issued is None or invoice.issued_on is None or abs(invoice.issued_on - issued) > timedelta(days=1):
        yield f"it is dated {invoice.issued_on}, but was issued on {issued}"
    elif invoice.kind == InvoiceKind.CREDIT_NOTE and invoice.due_on is None:
        return
    elif invoice.due_on != invoice.issued_on + timedelta(days=bill_to_of(invoice).payment_days):
        yield f"it is due on {invoice.due_on}, which doesn't match its payment terms"


def _problems_of_exchange(invoice: Invoice) -> Iterator[str]:
    rate = invoice.exchange_rate
    if rate is not None and (rate.currency, rate.per_usd) != (invoice.currency, invoice.per_usd):
        yield f"its exchange rate is {invoice.per_usd}, but the rate it refers to is {rate}"
