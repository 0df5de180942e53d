"""What an invoice says of itself: its digest, its sums, its taxes, its course. No usage is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from billing.content import has_content, issue_digest
from billing.currencies import DECIMALS
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.models import Invoice, InvoiceEvent, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.parties import bill_to_of
from billing.rating.lines import price_of
from billing.totals import tax_of
from llm.money import exact_arithmetic, exact_sum, round_half_away


def problems_of_sums(invoice: Invoice) -> Iterator[str]:
    lines = list(invoice.lines.order_by("position"))
    if not has_content(invoice, invoice.content_digest):
        yield "what stands there is not what was submitted"
    for line in lines:
        yield from _problems_of_line(line, DECIMALS[invoice.currency])
    subtotal = exact_sum(line.amount for line in lines)
    if subtotal != invoice.subtotal:
        yield f"its lines come to {subtotal:f}, its subtotal is {invoice.subtotal:f}"
    if invoice.kind != InvoiceKind.CREDIT_NOTE and invoice.tax != tax_of(
        invoice.subtotal, invoice.tax_percent, invoice.currency
    ):
        yield f"its tax is {invoice.tax:f}"
    if invoice.total != invoice.subtotal + invoice.tax:
        yield f"its total is {invoice.total:f}"


def _problems_of_line(line: InvoiceLine, decimals: int) -> Iterator[str]:
    if line.exact_amount != exact_sum((line.amount, line.residual)):
        yield f"line {line.position} is {line.amount:f} plus {line.residual:f}, not {line.exact_amount:f}"
    elif round_half_away(line.exact_amount, decimals) != line.amount:
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
    events = list(invoice.events.order_by("id"))
    if not events or events[-1].to_state != invoice.state:
        yield "its history does not end in the state that it is in"
    yield from _problems_of_history(invoice, events)
    yield from _problems_of_exchange(invoice)
    if invoice.kind == InvoiceKind.CREDIT_NOTE and invoice.original is not None:
        notes = invoice.original.credit_notes.exclude(state=InvoiceState.VOID)
        credited = exact_sum(notes.values_list("total", flat=True))
        if invoice.original.total + credited < 0 <= invoice.original.total:
            yield f"its credit notes give back {-credited:f}, more than the invoice's {invoice.original.total:f}"


def _problems_of_history(invoice: Invoice, events: Sequence[InvoiceEvent]) -> Iterator[str]:
    """Against the digests that its history has kept since it was last submitted, and since it was issued."""
    submitted = [number for number, event in enumerate(events) if event.action == InvoiceAction.SUBMIT]
    since = events[submitted[-1] :] if submitted else events
    if {event.content_digest for event in since} != {invoice.content_digest}:
        yield "what stands there is not what its history says"
    if invoice.state not in FINAL_STATES:
        return
    digests = [event.issue_digest for event in events if event.issue_digest]
    if digests and digests[-1] != issue_digest(invoice):
        yield "its number or its dates are not what its history says"
    elif not digests:
        yield from _problems_of_dates(invoice, events)


def _problems_of_dates(invoice: Invoice, events: Sequence[InvoiceEvent]) -> Iterator[str]:
    """Of an invoice that was issued when its history kept no digest of dates; the zone's day may be another by one."""
    issued = next((event.at.date() for event in events if event.action == InvoiceAction.ISSUE), None)
    if issued is None or invoice.issued_on is None or abs(invoice.issued_on - issued) > timedelta(days=1):
        yield f"it is dated {invoice.issued_on}, and was issued on {issued}"
    elif invoice.due_on != invoice.issued_on + timedelta(days=bill_to_of(invoice).payment_days):
        yield f"it is due on {invoice.due_on}, which are not the days that it allows"


def _problems_of_exchange(invoice: Invoice) -> Iterator[str]:
    rate = invoice.exchange_rate
    if rate is not None and (rate.currency, rate.per_usd) != (invoice.currency, invoice.per_usd):
        yield f"its exchange rate is {invoice.per_usd}, but the one that it names is {rate}"
