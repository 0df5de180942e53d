"""An invoice's rows -> the text of its document."""

from __future__ import annotations

from decimal import Decimal

from django.db.models import Sum
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.text import slugify

from billing.currencies import DECIMALS, format_money
from billing.documents.document import (
    LANGUAGE,
    DocumentTotals,
    Fact,
    InvoiceDocument,
    LineSection,
    LineText,
    Note,
    Party,
    TaxText,
)
from billing.documents.wording import (
    one_line,
    several_lines,
    text_of_day,
    text_of_days,
    text_of_exact,
    text_of_moment,
    text_of_month,
)
from billing.enums import CreditKind, InvoiceKind, InvoiceState
from billing.invoices.parties import BillTo, Seller, bill_to_of, seller_of
from billing.invoices.taxes import taxes_of
from billing.models import Invoice, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.periods import BillingPeriod

TITLES = {
    InvoiceKind.REGULAR: "Invoice",
    InvoiceKind.SUPPLEMENT: "Supplementary invoice",
    InvoiceKind.CREDIT_NOTE: "Credit note",
}
DRAFT = "DRAFT"
VOID = "VOID"
_MARK_TEXTS = {
    "": "",
    DRAFT: "This is a draft. It has not been issued, its figures may still change, and nothing is due on it.",
    VOID: "This document is void. It was withdrawn before it was issued, and nothing is due on it.",
}


def invoice_context(invoice: Invoice) -> InvoiceDocument:
    """The document's text. A paid invoice's is the same as when it was issued."""
    seller, bill_to = seller_of(invoice), bill_to_of(invoice)
    mark = _mark_of(invoice)
    return InvoiceDocument(
        title=TITLES[InvoiceKind(invoice.kind)],
        name=f"{TITLES[InvoiceKind(invoice.kind)]} {invoice.label or text_of_month(invoice.period)}",
        cites=_cites(invoice),
        mark=mark,
        mark_text=_MARK_TEXTS[mark],
        summary=_summary(invoice),
        facts=_facts(invoice, bill_to),
        seller=_seller_party(seller),
        bill_to=_bill_to_party(bill_to),
        column_labels=_column_labels(invoice.currency),
        sections=_sections(invoice),
        totals=_totals(invoice, bill_to),
        notes=_notes(invoice, seller, bill_to),
        proof=_proof(invoice),
        made_at=invoice.issued_at or invoice.created_at,
    )


def pdf_file_name(invoice: Invoice) -> str:
    """`INV-2026-000017.pdf`; without a number, for example `draft-invoice-acme-2026-10.pdf`. Plain ASCII."""
    if invoice.label:
        return f"{slugify(invoice.label).upper()}.pdf"
    account = slugify(invoice.account.name) or f"account-{invoice.account_id}"
    title = slugify(TITLES[InvoiceKind(invoice.kind)])
    return f"{_mark_of(invoice).lower()}-{title}-{account}-{invoice.period}.pdf"


def _mark_of(invoice: Invoice) -> str:
    if invoice.state == InvoiceState.VOID:
        return VOID
    return "" if invoice.state in FINAL_STATES else DRAFT


def _cites(invoice: Invoice) -> str:
    original = invoice.original
    if original is None:
        return ""
    day = f" of {text_of_day(original.issued_on)}" if original.issued_on else ""
    return f"Credits {TITLES[InvoiceKind(original.kind)].lower()} {original.label}{day}"


def _money(amount: Decimal, invoice: Invoice) -> str:
    return f"{format_money(amount, invoice.currency)} {invoice.currency}"


def _summary(invoice: Invoice) -> str:
    if invoice.kind == InvoiceKind.CREDIT_NOTE:
        return f"{_money(invoice.total, invoice)} credited"
    due = f" due {text_of_day(invoice.due_on)}" if invoice.due_on and invoice.total > 0 else ""
    return f"{_money(invoice.total, invoice)}{due}"


def _facts(invoice: Invoice, bill_to: BillTo) -> tuple[Fact, ...]:
    is_due = invoice.kind != InvoiceKind.CREDIT_NOTE
    facts = (
        ("Number", invoice.label),
        ("Issue date", text_of_day(invoice.issued_on) if invoice.issued_on else "not issued yet"),
        ("Due date", text_of_day(invoice.due_on) if is_due and invoice.due_on else ""),
        ("Period", f"{text_of_days(invoice.period)} ({bill_to.time_zone})"),
        ("PO number", one_line(bill_to.po_number)),
    )
    return tuple(Fact(label, value) for label, value in facts if value)


def _seller_party(seller: Seller) -> Party:
    lines = (*several_lines(seller.address), *_tax_id(seller.tax_id), *several_lines(seller.email))
    return Party("From", one_line(seller.name), lines)


def _bill_to_party(bill_to: BillTo) -> Party:
    lines = (*several_lines(bill_to.address), *several_lines(bill_to.country), *_tax_id(bill_to.tax_id))
    return Party("Bill to", one_line(bill_to.legal_name), lines)


def _tax_id(tax_id: str) -> tuple[str, ...]:
    return (f"Tax ID {one_line(tax_id)}",) if tax_id.strip() else ()


def _column_labels(currency: str) -> LineText:
    return LineText("Description", "Quantity", f"Per million ({currency})", f"Amount ({currency})")


def _sections(invoice: Invoice) -> tuple[LineSection, ...]:
    """The invoice's own month first, then earlier ones in order."""
    by_period: dict[BillingPeriod, list[LineText]] = {}
    for line in invoice.lines.all():
        by_period.setdefault(BillingPeriod(line.period_start), []).append(_line_text(line, invoice.currency))
    in_order = sorted(by_period, key=lambda period: (period != invoice.period, period))
    return tuple(
        LineSection(_heading(invoice, period, is_only=len(in_order) == 1), tuple(by_period[period]))
        for period in in_order
    )


def _heading(invoice: Invoice, period: BillingPeriod, *, is_only: bool) -> str:
    regular = (invoice.original or invoice).kind != InvoiceKind.SUPPLEMENT
    if regular and period == invoice.period:
        return "" if is_only else text_of_month(period)
    if invoice.kind != InvoiceKind.CREDIT_NOTE and _is_billed_again(invoice, period):
        return f"{text_of_month(period)}, billed again"
    return f"Late usage of {text_of_month(period)}"


def _is_billed_again(invoice: Invoice, period: BillingPeriod) -> bool:
    """Whether the month was corrected before this document; later corrections must not change what it says."""
    corrections = Invoice.objects.final().filter(account=invoice.account_id, credit_kind=CreditKind.CORRECTION)
    corrections = corrections.filter(issued_at__lte=invoice.submitted_at or timezone.now())
    return InvoiceLine.objects.filter(invoice__in=corrections, period_start=period.start).exists()


def _line_text(line: InvoiceLine, currency: str) -> LineText:
    price = line.unit_price
    return LineText(
        description=one_line(line.description),
        quantity="" if line.quantity is None else f"{line.quantity:,}",
        unit_price="" if price is None else text_of_exact(price, min_decimals=DECIMALS[currency]),
        amount=format_money(line.amount, currency),
    )


def _totals(invoice: Invoice, bill_to: BillTo) -> DocumentTotals:
    first, *further = _taxes(invoice)
    return DocumentTotals(
        subtotal=format_money(invoice.subtotal, invoice.currency),
        tax_label=first.label,
        tax_note=one_line(bill_to.tax_note),
        tax=first.amount,
        total=_money(invoice.total, invoice),
        further_taxes=tuple(further),
    )


def _taxes(invoice: Invoice) -> tuple[TaxText, ...]:
    taxes = taxes_of(invoice)
    return tuple(
        TaxText(
            f"Tax {text_of_exact(each.percent)}%"
            + (f" on {format_money(each.net, invoice.currency)}" if len(taxes) > 1 else ""),
            format_money(each.tax, invoice.currency),
        )
        for each in taxes
    )


def _notes(invoice: Invoice, seller: Seller, bill_to: BillTo) -> tuple[Note, ...]:
    notes = (
        Note("Payment", _payment(invoice, seller, bill_to)),
        Note("Exchange rate", _exchange_rate(invoice)),
    )
    return tuple(note for note in notes if note.lines)


def _payment(invoice: Invoice, seller: Seller, bill_to: BillTo) -> tuple[str, ...]:
    if invoice.kind == InvoiceKind.CREDIT_NOTE or invoice.total <= 0:
        return ("No payment is due on this document.",)
    reference = (f"Please state {invoice.label} with your payment.",) if invoice.label else ()
    return (_terms(invoice, bill_to), *several_lines(seller.payment), *reference)


def _terms(invoice: Invoice, bill_to: BillTo) -> str:
    days = bill_to.payment_days
    since = f"{days} day{'' if days == 1 else 's'} after issue" if days else "on issue"
    return f"Due {text_of_day(invoice.due_on)}, {since}." if invoice.due_on else f"Due {since}."


def _exchange_rate(invoice: Invoice) -> tuple[str, ...]:
    rate = invoice.exchange_rate
    if rate is None:
        return ()
    per_usd = rate.per_usd if invoice.per_usd is None else invoice.per_usd
    return (f"1 USD = {text_of_exact(per_usd)} {invoice.currency}", f"{one_line(rate.source)}, {text_of_day(rate.on)}")


def _proof(invoice: Invoice) -> tuple[Fact, ...]:
    calls = invoice.billed_usage.aggregate(calls=Sum("calls"))["calls"]
    cutoff = invoice.cutoff_at
    facts = (
        ("Usage recorded by", "" if cutoff is None else text_of_moment(cutoff)),
        ("Calls", "" if calls is None else f"{calls:,}"),
        ("Content digest (SHA-256)", invoice.content_digest),
    )
    return tuple(Fact(label, value) for label, value in facts if value)


def render_html(invoice: Invoice) -> str:
    return render_to_string("billing/invoice.html", {"document": invoice_context(invoice), "language": LANGUAGE})
