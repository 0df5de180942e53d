from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing.documents import invoice_context, pdf_file_name
from billing.documents.document import DocumentTotals, Fact, LineSection, LineText, Note, Party
from billing.enums import InvoiceKind, InvoiceState
from billing.models import BilledUsage, BillingProfile, Invoice
from tests.billing.factories import OCTOBER, make_exchange_rate, make_invoice, make_profile

INPUT = {
    "amount": "5.30",
    "description": "gpt-test, input tokens",
    "quantity": 2_000_441,
    "unit_price": Decimal("2.648737500000"),
}
FEE = {"amount": "99.00", "description": "Flat fee", "kind": "flat_fee"}
SEPTEMBER = date(2026, 9, 1)


def credit_note(original: Invoice, profile: BillingProfile, **values: Any) -> Invoice:
    citing = {"kind": InvoiceKind.CREDIT_NOTE, "original": original, "credit_sequence": 1}
    return make_invoice(profile, **{"number": 3, "lines": ({"amount": "-5.30"},), **citing, **values})


def test_issued_invoice_says_who_owes_what_to_whom(profile: BillingProfile) -> None:
    invoice = make_invoice(profile, state=InvoiceState.ISSUED, lines=(INPUT, FEE), tax_percent="19")

    document = invoice_context(invoice)

    assert document.title == "Invoice"
    assert document.name == "Invoice INV-2026-000017"
    assert (document.mark, document.mark_text, document.cites) == ("", "", "")
    assert document.summary == "124.12 EUR due 3 December 2026"
    assert document.facts == (
        Fact("Number", "INV-2026-000017"),
        Fact("Issue date", "3 November 2026"),
        Fact("Due date", "3 December 2026"),
        Fact("Period", "1\u201331 October 2026 (Europe/Berlin)"),
        Fact("PO number", "PO-4711"),
    )
    assert document.seller == Party(
        "From",
        "Northwind Inference GmbH",
        ("Lagerstraße 12", "20357 Hamburg", "Tax ID DE 312 456 789", "billing@northwind.example"),
    )
    assert document.bill_to == Party(
        "Bill to", "Acme S.A.", ("48, avenue Foch", "75016 Paris", "FR", "Tax ID FR 12 345678901")
    )
    assert document.column_labels == LineText("Description", "Quantity", "Per million (EUR)", "Amount (EUR)")
    assert document.sections == (
        LineSection(
            "",
            (
                LineText("gpt-test, input tokens", "2,000,441", "2.6487375", "5.30"),
                LineText("Flat fee", "", "", "99.00"),
            ),
        ),
    )
    assert document.totals == DocumentTotals("104.30", "Tax 19%", "Reverse charge", "19.82", "124.12 EUR")


def test_payment_terms_and_bank_account(profile: BillingProfile) -> None:
    issued = make_invoice(profile, state=InvoiceState.ISSUED)
    draft = make_invoice(profile, period_start=SEPTEMBER)
    bank = ("IBAN DE02 1203 0000 0000 2020 51", "BIC BYLADEM1001")

    assert invoice_context(issued).notes == (
        Note(
            "Payment",
            (
                "Due 3 December 2026, 30 days after issue.",
                *bank,
                "Please state INV-2026-000017 with your payment.",
            ),
        ),
    )
    assert invoice_context(draft).notes == (Note("Payment", ("Due 30 days after issue.", *bank)),)


@pytest.mark.parametrize(("days", "terms"), [(0, "Due on issue."), (1, "Due 1 day after issue.")])
def test_short_payment_terms(profile: BillingProfile, days: int, terms: str) -> None:
    profile.payment_days = days
    profile.save()

    assert invoice_context(make_invoice(profile)).notes[0].lines[0] == terms


def test_nothing_is_asked_for_where_nothing_is_due(profile: BillingProfile) -> None:
    invoice = make_invoice(profile, state=InvoiceState.ISSUED, lines=({"amount": "0.00"},))

    document = invoice_context(invoice)

    assert document.notes == (Note("Payment", ("No payment is due on this document.",)),)
    assert document.summary == "0.00 EUR"


@pytest.mark.parametrize(
    ("state", "mark"),
    [
        (InvoiceState.DRAFT, "DRAFT"),
        (InvoiceState.IN_REVIEW, "DRAFT"),
        (InvoiceState.APPROVED, "DRAFT"),
        (InvoiceState.ISSUED, ""),
        (InvoiceState.PAID, ""),
        (InvoiceState.VOID, "VOID"),
    ],
)
def test_what_was_not_issued_is_marked(profile: BillingProfile, state: InvoiceState, mark: str) -> None:
    document = invoice_context(make_invoice(profile, state=state))

    assert document.mark == mark
    assert bool(document.mark_text) == bool(mark)


def test_draft_has_no_number_and_no_due_date(profile: BillingProfile) -> None:
    document = invoice_context(make_invoice(profile))

    assert document.name == "Invoice October 2026"
    assert document.summary == "10.00 EUR"
    assert [fact.label for fact in document.facts] == ["Issue date", "Period", "PO number"]
    assert document.facts[0] == Fact("Issue date", "not issued yet")


def test_paying_changes_nothing(profile: BillingProfile) -> None:
    invoice = make_invoice(profile, state=InvoiceState.ISSUED)
    as_issued = invoice_context(invoice)
    invoice.state, invoice.paid_on = InvoiceState.PAID, date(2026, 11, 20)
    invoice.save()

    assert invoice_context(invoice) == as_issued


def test_late_usage_has_a_section_for_each_month(profile: BillingProfile) -> None:
    lines = (
        {"amount": "1.00", "description": "August", "period_start": date(2026, 8, 1)},
        {"amount": "4.00", "description": "October"},
        {"amount": "3.00", "description": "September, input", "period_start": SEPTEMBER},
        {"amount": "2.00", "description": "September, output", "period_start": SEPTEMBER},
    )

    sections = invoice_context(make_invoice(profile, lines=lines)).sections

    assert [(section.heading, [line.description for line in section.lines]) for section in sections] == [
        ("October 2026", ["October"]),
        ("Late usage of August 2026", ["August"]),
        ("Late usage of September 2026", ["September, input", "September, output"]),
    ]


def test_supplement_is_late_usage_throughout(profile: BillingProfile) -> None:
    invoice = make_invoice(profile, kind=InvoiceKind.SUPPLEMENT)

    document = invoice_context(invoice)

    assert document.title == "Supplementary invoice"
    assert [section.heading for section in document.sections] == ["Late usage of October 2026"]


def test_credit_note_cites_its_original_and_is_negative(profile: BillingProfile) -> None:
    original = make_invoice(profile, state=InvoiceState.ISSUED)
    note = credit_note(original, profile, state=InvoiceState.ISSUED, tax_percent="20")

    document = invoice_context(note)

    assert document.title == "Credit note"
    assert document.cites == "Credits invoice INV-2026-000017 of 3 November 2026"
    assert document.summary == "-6.36 EUR credited"
    assert document.sections[0].lines[0].amount == "-5.30"
    assert document.totals == DocumentTotals("-5.30", "Tax 20%", "Reverse charge", "-1.06", "-6.36 EUR")
    assert document.notes == (Note("Payment", ("No payment is due on this document.",)),)
    assert "Due date" not in [fact.label for fact in document.facts]


def test_credit_note_of_a_supplement_says_so(profile: BillingProfile) -> None:
    original = make_invoice(profile, kind=InvoiceKind.SUPPLEMENT, state=InvoiceState.ISSUED)

    document = invoice_context(credit_note(original, profile))

    assert document.cites == "Credits supplementary invoice INV-2026-000017 of 3 November 2026"
    assert [section.heading for section in document.sections] == ["Late usage of October 2026"]


def test_exchange_rate_has_its_date_and_source(profile: BillingProfile) -> None:
    rate = make_exchange_rate("EUR", "0.921300")

    notes = invoice_context(make_invoice(profile, exchange_rate=rate, per_usd=rate.per_usd)).notes

    assert notes[1] == Note("Exchange rate", ("1 USD = 0.9213 EUR", "ECB reference rate, 30 October 2026"))


def test_proof_counts_each_call_once(profile: BillingProfile) -> None:
    invoice = make_invoice(profile, lines=(INPUT | {"calls": 1200}, FEE | {"calls": 1200}))
    for model, calls in (("gpt-test", 1200), ("claude-test", 34)):
        BilledUsage.objects.create(
            invoice=invoice, period_start=OCTOBER, provider="openai", model=model, rate_set=None, calls=calls
        )
    Invoice.objects.filter(pk=invoice.pk).update(content_digest="ab" * 32)
    invoice.refresh_from_db()

    assert invoice_context(invoice).proof == (
        Fact("Usage recorded by", "2026-11-01 06:00:12.345678 UTC"),
        Fact("Calls", "1,234"),
        Fact("Content digest (SHA-256)", "ab" * 32),
    )


@pytest.mark.parametrize(
    ("currency", "amount", "line", "price", "total"),
    [
        ("JPY", "1234567", "1,234,567", "2.5", "1,234,567 JPY"),
        ("USD", "1234567.5", "1,234,567.50", "2.50", "1,234,567.50 USD"),
        ("KWD", "1234567.5", "1,234,567.500", "2.500", "1,234,567.500 KWD"),
    ],
)
def test_amounts_have_the_decimals_of_their_currency(
    db: None, currency: str, amount: str, line: str, price: str, total: str
) -> None:
    lines = ({"amount": amount, "unit_price": Decimal("2.5"), "quantity": 10**18},)

    document = invoice_context(make_invoice(make_profile(currency=currency), lines=lines))

    assert document.sections[0].lines[0] == LineText("gpt-test, input tokens", "1,000,000,000,000,000,000", price, line)
    assert document.totals.total == total


def test_names_are_composed(profile: BillingProfile) -> None:
    profile.legal_name = "A\u030angstro\u0308m  och So\u0308ner"
    profile.save()

    assert invoice_context(make_invoice(profile)).bill_to.name == "Ångström och Söner"


def test_file_name_is_the_number_else_says_what_it_is(profile: BillingProfile) -> None:
    issued = make_invoice(profile, state=InvoiceState.ISSUED)
    draft = make_invoice(profile, period_start=SEPTEMBER)
    void = make_invoice(profile, period_start=date(2026, 8, 1), state=InvoiceState.VOID)

    assert pdf_file_name(issued) == "INV-2026-000017.pdf"
    assert pdf_file_name(draft) == "draft-invoice-acme-2026-09.pdf"
    assert pdf_file_name(void) == "void-invoice-acme-2026-08.pdf"
    assert pdf_file_name(credit_note(issued, profile)) == "draft-credit-note-acme-2026-10.pdf"


def test_file_name_of_an_account_without_latin_letters(profile: BillingProfile) -> None:
    profile.account.name = "株式会社/../\r\n"
    profile.account.save()

    assert pdf_file_name(make_invoice(profile)) == f"draft-invoice-account-{profile.account_id}-2026-10.pdf"


def test_queries_do_not_grow_with_the_lines(
    profile: BillingProfile, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    lines = tuple({"amount": "1.00", "key": f"line {number}"} for number in range(40))
    invoice = Invoice.objects.get(pk=make_invoice(profile, state=InvoiceState.ISSUED, lines=lines).pk)

    with django_assert_num_queries(2):
        invoice_context(invoice)
