"""What a credit note is for: a correction is billed again, goodwill never, and a reduction comes by itself."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import pytest

from billing.documents import invoice_context, render_html, render_pdf
from billing.enums import CreditKind, InvoiceKind, LineKind
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit, credit_and_bill_again
from billing.jobs.exports import export_month
from billing.models import BillingProfile, Invoice, Plan
from billing.plans import add_version
from llm.books.rerating import rerate
from llm.models import Account, Price
from llm.prices.staff import set_price
from tests.billing.calls import make_call, make_price
from tests.billing.exports.months import verify
from tests.billing.factories import make_account, make_profile
from tests.billing.months import (
    IN_SEPTEMBER,
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    approver,
    charged,
    close_and_issue,
    drafts_of,
    findings,
    reprice,
    through_review,
)

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture
def account() -> Account:
    return make_account()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def price_of_100() -> Price:
    return Price.objects.first() or make_price(input="100")


def september_of_100(account: Account, *, tax: str = "0") -> Invoice:
    make_profile(account, tax_percent=Decimal(tax))
    make_call(account, day=IN_SEPTEMBER, price=price_of_100(), prompt_tokens=1_000_000)
    [invoice] = close_and_issue(account, SEPTEMBER)
    assert invoice.subtotal == Decimal(100)
    return invoice


def test_a_corrected_month_ends_at_what_it_costs_now(account: Account) -> None:
    september = september_of_100(account)
    note = through_review(credit_and_bill_again(september.pk, user=approver(), reason="wrong price"))
    assert (note.credit_kind, note.total) == (CreditKind.CORRECTION, Decimal(-100))
    reprice("60")
    [october] = close_and_issue(account, OCTOBER)
    assert (october.kind, october.total) == (InvoiceKind.REGULAR, Decimal(60))
    assert charged(account) == Decimal(60)
    assert findings(SEPTEMBER, OCTOBER) == []
    assert close_and_issue(account, NOVEMBER) == []


def test_a_month_that_was_given_away_is_not_given_back_again(account: Account) -> None:
    september = september_of_100(account)
    note = through_review(credit(september.pk, user=approver(), reason="an outage"))
    assert (note.credit_kind, note.total) == (CreditKind.GOODWILL, Decimal(-100))
    reprice("60")
    assert close_and_issue(account, OCTOBER) == []
    assert charged(account) == Decimal(0)
    assert findings(SEPTEMBER, OCTOBER) == []


def test_goodwill_is_not_charged_by_the_next_invoice(account: Account) -> None:
    september = september_of_100(account)
    [line] = september.lines.all()
    through_review(credit(september.pk, user=approver(), reason="an outage", amounts={line.pk: Decimal(20)}))
    assert close_and_issue(account, OCTOBER) == []
    assert charged(account) == Decimal(80)


@pytest.mark.parametrize(("price", "ends_at"), [("90", 80), ("60", 60), ("120", 100)])
def test_a_reduction_is_lessened_by_goodwill(account: Account, price: str, ends_at: int) -> None:
    september = september_of_100(account)
    [line] = september.lines.all()
    through_review(credit(september.pk, user=approver(), reason="an outage", amounts={line.pk: Decimal(20)}))
    reprice(price)
    close_and_issue(account, OCTOBER)
    assert charged(account) == Decimal(ends_at)
    assert findings(SEPTEMBER, OCTOBER) == []
    reprice("100")
    close_and_issue(account, NOVEMBER)
    assert charged(account) == Decimal(80)
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


def test_a_reduction_gives_back_the_tax_of_its_month(account: Account) -> None:
    september = september_of_100(account, tax="19")
    assert september.total == Decimal(119)
    BillingProfile.objects.update(tax_percent=Decimal(0))
    reprice("0")
    report = close_month(OCTOBER, account=account)
    assert (report.drafted, report.credited) == ([], [account.name])
    [note] = drafts_of(account)
    assert (note.kind, note.credit_kind, note.original) == (InvoiceKind.CREDIT_NOTE, CreditKind.REDUCTION, september)
    assert (note.subtotal, note.tax, note.total) == (Decimal(-100), Decimal(-19), Decimal(-119))
    assert through_review(note).label.startswith("CN-")
    assert charged(account) == Decimal(0)
    assert findings(SEPTEMBER, OCTOBER) == []
    assert close_and_issue(account, NOVEMBER) == []


def test_an_increase_has_the_tax_of_its_month(account: Account) -> None:
    september_of_100(account, tax="19")
    BillingProfile.objects.update(tax_percent=Decimal(7))
    make_call(account, day=date(2025, 10, 5), price=price_of_100(), prompt_tokens=500_000)
    make_call(account, day=IN_SEPTEMBER, price=price_of_100(), prompt_tokens=100_000)
    [october] = close_and_issue(account, OCTOBER)
    assert [(each["percent"], each["net"], each["tax"]) for each in october.taxes] == [
        ("7", "50", "3.5"),
        ("19", "10", "1.9"),
    ]
    assert (october.subtotal, october.tax, october.total) == (Decimal(60), Decimal("5.4"), Decimal("65.4"))
    assert findings(SEPTEMBER, OCTOBER) == []
    taxes = invoice_context(october).totals.taxes
    assert [(tax.label, tax.amount) for tax in taxes] == [("Tax 7% on 50.00", "3.50"), ("Tax 19% on 10.00", "1.90")]
    assert all(tax.label in render_html(october) for tax in taxes)
    assert render_pdf(october).startswith(b"%PDF-")


def test_exports_say_the_tax_of_each_month(account: Account, tmp_path: Path) -> None:
    september_of_100(account, tax="19")
    BillingProfile.objects.update(tax_percent=Decimal(7))
    make_call(account, day=date(2025, 10, 5), price=price_of_100(), prompt_tokens=500_000)
    make_call(account, day=IN_SEPTEMBER, price=price_of_100(), prompt_tokens=100_000)
    close_and_issue(account, OCTOBER)
    folder = tmp_path / "october"
    export_month(OCTOBER, folder, ("csv", "focus", "xero"))
    assert verify(folder)[0] == 0
    assert [row["*TaxType"] for row in rows_of(folder / "xero-invoices.csv")] == ["7%", "19%"]
    focus = [row for row in rows_of(folder / "focus-1.2.csv") if row["ChargeCategory"] == "Tax"]
    assert [(row["ChargeDescription"], row["BilledCost"]) for row in focus] == [
        ("Tax, 7 %", "3.5"),
        ("Tax, 19 %", "1.9"),
    ]


def test_a_reduction_is_exported_as_a_correction_of_its_month(account: Account, tmp_path: Path) -> None:
    september_of_100(account, tax="19")
    reprice("60")
    close_and_issue(account, OCTOBER)
    folder = tmp_path / "september"
    export_month(SEPTEMBER, folder, ("csv", "focus", "xero"))
    assert verify(folder)[0] == 0
    rows = rows_of(folder / "focus-1.2.csv")
    lines = [row for row in rows if row["x_InvoiceKind"] == "credit_note" and row["x_LinePosition"]]
    assert [(row["ChargeClass"], row["BilledCost"]) for row in lines] == [("Correction", "60"), ("Correction", "-100")]
    assert [row["credit_kind"] for row in rows_of(folder / "invoices.csv")] == ["reduction", ""]


def test_free_calls_use_up_no_included_tokens(account: Account) -> None:
    plan = Plan.objects.create(name="A million included")
    add_version(plan, effective_from=date(2025, 1, 1), allowance_tokens=1_000_000)
    make_profile(account, plan=plan)
    make_call(account, day=IN_SEPTEMBER, price=make_price(input="2.50"), prompt_tokens=1_000_000)
    reprice("0")
    close_month(SEPTEMBER, account=account)
    [draft] = drafts_of(account)
    assert draft.total == Decimal(0)
    assert not draft.lines.filter(kind=LineKind.ALLOWANCE).exists()


def test_calls_that_became_free_within_a_month_use_up_no_included_tokens(account: Account) -> None:
    """A million tokens of either model are left to pay, and two are included."""
    plan = Plan.objects.create(name="Two million included")
    add_version(plan, effective_from=date(2025, 1, 1), allowance_tokens=2_000_000)
    make_profile(account, plan=plan)
    dear, cheap = make_price("dear", input="2.50"), make_price("cheap", input="1")
    make_call(account, day=date(2025, 9, 5), price=dear, model="dear", prompt_tokens=1_000_000)
    make_call(account, day=date(2025, 9, 20), price=dear, model="dear", prompt_tokens=1_000_000)
    make_call(account, day=date(2025, 9, 20), price=cheap, model="cheap", prompt_tokens=1_000_000)
    since = date(2025, 9, 15)
    set_price("openai", "dear", effective_from=datetime.combine(since, time(), UTC), is_free=True)
    rerate("openai", "dear", first_day=since, last_day=SEPTEMBER.last_day, reason="free from the 15th on")
    close_month(SEPTEMBER, account=account)
    [draft] = drafts_of(account)
    assert draft.total == Decimal(0)
    assert [(line.model, line.quantity, line.amount) for line in draft.lines.order_by("position")] == [
        ("cheap", 1_000_000, Decimal(1)),
        ("dear", 1_000_000, Decimal("2.5")),
        ("dear", 1_000_000, Decimal(0)),
        ("", -2_000_000, Decimal("-3.5")),
    ]
    through_review(draft)
    assert findings(SEPTEMBER) == []
