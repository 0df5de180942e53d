"""What credit notes must never be, and how goodwill, corrections and reductions lessen each other."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, transaction

from billing.enums import CreditKind, InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.exports.registry import FORMATS
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit, credit_and_bill_again
from billing.invoices.digests import content_digest
from billing.invoices.goodwill import Goodwill
from billing.invoices.review import issue, submit
from billing.jobs.exports import export_month
from billing.models import BillingProfile, Invoice, Plan
from billing.plans import add_version
from llm.models import Account, Price
from llm.money import exact_sum
from tests.billing.calls import make_call, make_price
from tests.billing.exports.months import verify
from tests.billing.factories import former_invoices, make_account, make_exchange_rate, make_invoice, make_profile
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
    preparer,
    reprice,
    through_review,
)

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def september(price: str = "100", **terms: Any) -> Invoice:
    """A million tokens at that price."""
    account = make_account()
    plan = Plan.objects.create(name="With terms")
    add_version(plan, effective_from=date(2025, 1, 1), **terms)
    make_profile(account, plan=plan)
    make_call(account, day=IN_SEPTEMBER, price=make_price(input=price), prompt_tokens=1_000_000)
    [invoice] = close_and_issue(account, SEPTEMBER)
    return invoice


def call_at_100(account: Account, *, prompt_tokens: int, day: date = IN_SEPTEMBER) -> None:
    """Per million tokens."""
    make_call(account, day=day, price=Price.objects.earliest("id"), prompt_tokens=prompt_tokens)


def give(invoice: Invoice, amount: str) -> Invoice:
    """Goodwill on the line that has the largest amount."""
    line = invoice.lines.order_by("-amount")[0]
    note = credit(invoice.pk, user=approver(), reason="an outage", amounts={line.pk: Decimal(amount)})
    return through_review(note)


def take_back(invoice: Invoice) -> Invoice:
    return through_review(credit_and_bill_again(invoice.pk, user=approver(), reason="wrong"))


def bill_in(currency: str, per_usd: str | None = None) -> None:
    plan = Plan.objects.create(name=f"Cost in {currency}")
    add_version(plan, effective_from=date(2025, 1, 1), currency=currency)
    if per_usd is not None:
        make_exchange_rate(currency, per_usd, on=date(2025, 1, 1))
    BillingProfile.objects.update(plan=plan, currency=currency)


def the_account() -> Account:
    return Account.objects.get()


# --- A credit note gives money back -----------------------------------------------------------------------------------


def test_lines_that_reduce_others_are_not_taken_back_alone() -> None:
    invoice = september(discount_percent=Decimal(10))
    usage, discount = invoice.lines.order_by("position")
    with pytest.raises(InvoiceError, match=r"come to -10\.00 USD: also choose the lines that they reduce"):
        credit_and_bill_again(invoice.pk, user=approver(), reason="wrong", line_ids=[discount.pk])
    assert Invoice.objects.count() == 1
    assert invoice.events.latest("id").action != "bill_again"
    note = credit_and_bill_again(invoice.pk, user=approver(), reason="wrong", line_ids=[discount.pk, usage.pk])
    assert note.total == Decimal(-90)


def test_each_month_of_a_note_gives_back() -> None:
    """A discount of October isn't taken back beside a line of September."""
    invoice = september(discount_percent=Decimal(10))
    call_at_100(invoice.account, day=date(2025, 10, 5), prompt_tokens=500_000)
    call_at_100(invoice.account, prompt_tokens=500_000)
    [october] = close_and_issue(invoice.account, OCTOBER)
    late = october.lines.get(period_start=SEPTEMBER.start, amount__gt=0)
    discount = october.lines.get(period_start=OCTOBER.start, amount__lt=0)
    with pytest.raises(InvoiceError, match=r"The lines of 2025-10 come to -5\.00 USD"):
        credit_and_bill_again(october.pk, user=approver(), reason="wrong", line_ids=[late.pk, discount.pk])


def note_of(amount: str, **values: Any) -> Invoice:
    profile = make_profile()
    original = make_invoice(profile, state=InvoiceState.ISSUED)
    kind: dict[str, Any] = {"kind": InvoiceKind.CREDIT_NOTE, "original": original, "credit_sequence": 1}
    return make_invoice(profile, **kind, lines=({"amount": amount},), **values)


def test_the_database_refuses_a_credit_note_that_charges() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        note_of("0.01")


@pytest.mark.parametrize("amount", ["10", "-0.01"])
def test_the_database_takes_no_new_invoice_of_a_former_version(amount: str) -> None:
    """By which the checks of what an invoice may come to would be passed by."""
    with pytest.raises(DatabaseError, match="present version"), transaction.atomic():
        make_invoice(lines=({"amount": amount},), content_version=1)
    assert not Invoice.objects.exists()


def test_a_positive_draft_of_before_is_not_submitted() -> None:
    with former_invoices():
        note = note_of("0.01", content_version=1)
    with pytest.raises(InvoiceError, match=r"would charge 0\.01 USD"):
        submit(note.pk, user=preparer())
    note.refresh_from_db()
    assert (note.state, note.content_version) == (InvoiceState.DRAFT, 1)


@pytest.mark.parametrize("state", [InvoiceState.DRAFT, InvoiceState.IN_REVIEW, InvoiceState.APPROVED])
@pytest.mark.parametrize("change", [{}, {"state": InvoiceState.DRAFT}, {"total": Decimal(-5)}])
def test_the_version_of_what_is_said_is_never_lowered(state: InvoiceState, change: dict[str, Any]) -> None:
    invoice = make_invoice(state=state)
    with pytest.raises(DatabaseError), transaction.atomic():
        Invoice.objects.filter(pk=invoice.pk).update(content_version=1, **change)
    invoice.refresh_from_db()
    assert (invoice.content_version, invoice.total) == (2, Decimal(10))


# --- Dates ------------------------------------------------------------------------------------------------------------


def test_a_credit_note_is_not_dated_before_its_invoice(settings: Any) -> None:
    settings.BILLING_SELLER_TIME_ZONE = "Pacific/Kiritimati"
    invoice = september()
    settings.BILLING_SELLER_TIME_ZONE = "Pacific/Pago_Pago"
    note = give(invoice, "20")
    assert note.label.startswith("CN-")
    assert note.issued_on == invoice.issued_on


def test_the_series_of_a_credit_note_is_that_of_its_date(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    days = iter([date(2027, 1, 1), date(2026, 12, 31)])
    monkeypatch.setattr("billing.invoices.review.sellers_date", lambda moment: next(days))
    invoice = september()
    note = give(invoice, "20")
    assert (invoice.series_id, note.series_id, note.issued_on) == ("INV-2027", "CN-2027", date(2027, 1, 1))


# --- Corrections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "ends_at"), [("10.26", "9.23"), ("10.24", "9.22"), ("0.05", "0.04"), ("7.777", "7.00")]
)
def test_a_correction_of_a_reduced_month_verifies(price: str, ends_at: str, tmp_path: Path) -> None:
    """15.32 less 10 %: the reduction's lines and the invoice's are rounded each by itself."""
    invoice = september("15.32", discount_percent=Decimal(10))
    reprice(price)
    [reduction] = close_and_issue(invoice.account, OCTOBER)
    note = take_back(invoice)
    assert note.total == -(invoice.total + reduction.total)
    assert findings(SEPTEMBER, OCTOBER) == []
    export_month(SEPTEMBER, tmp_path / "september", tuple(FORMATS))
    assert verify(tmp_path / "september")[0] == 0
    close_and_issue(invoice.account, NOVEMBER)
    assert charged(invoice.account) == Decimal(ends_at)
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


def test_a_line_names_its_month_once() -> None:
    """Late usage that was billed in October, is free now, and was taken back by notes over October's invoice."""
    invoice = september()
    call_at_100(invoice.account, prompt_tokens=500_000)
    [october] = close_and_issue(invoice.account, OCTOBER)
    assert [line.description for line in october.lines.all()] == ["2025-09: gpt-4o, input tokens"]
    reprice("0")
    close_and_issue(invoice.account, NOVEMBER)
    note = Invoice.objects.get(original=october, credit_kind=CreditKind.REDUCTION)
    assert {line.description for line in note.lines.all()} == {"2025-09: gpt-4o, input tokens, billed before"}
    own = Invoice.objects.get(original=invoice, credit_kind=CreditKind.REDUCTION)
    assert {line.description for line in own.lines.all()} == {
        "gpt-4o, input tokens",
        "gpt-4o, input tokens, billed before",
    }
    late = Invoice.objects.filter(lines__description__regex=r"2025-09:.*2025-09:")
    assert not late.exists()


def test_a_correction_names_the_month_of_late_lines_once() -> None:
    invoice = september()
    call_at_100(invoice.account, prompt_tokens=500_000)
    [october] = close_and_issue(invoice.account, OCTOBER)
    give(october, "20")
    note = take_back(october)
    assert {line.description for line in note.lines.all()} == {
        "2025-09: gpt-4o, input tokens",
        "2025-09: Goodwill that was credited already",
    }
    [november] = close_and_issue(invoice.account, NOVEMBER)
    assert {line.description for line in november.lines.all()} == {
        "2025-09: gpt-4o, input tokens",
        "2025-09: Goodwill that was credited already",
    }
    assert charged(invoice.account) == Decimal(130)


# --- Rounding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prices", "amounts"),
    [
        (("10.005", "10.004", "0"), ("10.01", "-0.01", "-10")),
        (("10.004", "10.005", "0"), ("10", "0.01", "-10.01")),
        (("10.004", "10.006", "10.005", "10.004"), ("10", "0.01", "0", "-0.01")),
    ],
)
def test_what_is_rounded_in_parts_comes_to_what_the_whole_is_rounded_to(
    prices: tuple[str, ...], amounts: tuple[str, ...], tmp_path: Path
) -> None:
    make_profile(make_account())
    assert billed_in_turn(prices, tmp_path) == [Decimal(each) for each in amounts]


def test_so_it_does_in_a_currency_without_decimals(tmp_path: Path) -> None:
    make_profile(make_account())
    bill_in("JPY", "1")
    assert billed_in_turn(("10.5", "10.4", "0"), tmp_path) == [Decimal(11), Decimal(-1), Decimal(-10)]


def billed_in_turn(prices: tuple[str, ...], folder: Path) -> list[Decimal]:
    """What the documents come to of a month that is billed at the first price, and again after each of the others."""
    account, period = the_account(), SEPTEMBER
    make_call(account, day=IN_SEPTEMBER, price=make_price(input=prices[0]), prompt_tokens=1_000_000)
    totals = []
    for price in (*prices[1:], None):
        totals.append(exact_sum(each.total for each in close_and_issue(account, period)))
        if Invoice.objects.filter(period_start=period.start).exists():
            export_month(period, folder / str(period), tuple(FORMATS))
            assert verify(folder / str(period))[0] == 0
        assert findings(SEPTEMBER, period) == []
        period = period.following
        if price is not None:
            reprice(price)
    export_month(SEPTEMBER, folder / "whole", tuple(FORMATS))
    assert verify(folder / "whole")[0] == 0
    return totals


# --- Goodwill in another currency -------------------------------------------------------------------------------------


def test_goodwill_holds_when_its_month_is_billed_again_in_another_currency() -> None:
    invoice = september()
    give(invoice, "20")
    assert take_back(invoice).total == Decimal(-80)
    bill_in("EUR", "0.5")
    [october] = close_and_issue(the_account(), OCTOBER)
    assert (october.currency, october.total) == ("EUR", Decimal(40))
    assert findings(SEPTEMBER, OCTOBER) == []
    assert close_and_issue(the_account(), NOVEMBER) == []


@pytest.mark.parametrize(("price", "ends_at"), [("90", 40), ("60", 30), ("120", 50)])
def test_a_reduction_in_the_new_currency_is_lessened_by_goodwill(price: str, ends_at: int) -> None:
    """In euros: 50 less 10 of goodwill, and then 45, 30 or 60."""
    invoice = september()
    give(invoice, "20")
    take_back(invoice)
    bill_in("EUR", "0.5")
    close_and_issue(the_account(), OCTOBER)
    reprice(price)
    close_and_issue(the_account(), NOVEMBER)
    assert charged(the_account()) == Decimal(ends_at)
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


def test_goodwill_holds_when_its_month_comes_back_to_the_first_currency() -> None:
    invoice = september()
    give(invoice, "20")
    take_back(invoice)
    bill_in("EUR", "0.5")
    [october] = close_and_issue(the_account(), OCTOBER)
    give(october, "5")
    assert findings(SEPTEMBER, OCTOBER) == []
    assert take_back(october).total == Decimal(-35)
    bill_in("USD")
    [november] = close_and_issue(the_account(), NOVEMBER)
    # 100 less 20, and less 5 euros at 0.5.
    assert (november.currency, november.total) == ("USD", Decimal(70))
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


# --- Several goodwills and reductions ---------------------------------------------------------------------------------


def test_goodwills_one_after_the_other_are_as_one() -> None:
    for first, second in ((Decimal(20), Decimal(30)), (Decimal(30), Decimal(20)), (Decimal(49), Decimal(1))):
        both = Goodwill(Decimal(50), Decimal(100))
        one, other = Goodwill(first, Decimal(100)), Goodwill(second, 100 - first)
        for charge in map(Decimal, range(151)):
            assert other.applied_to(one.applied_to(charge)) == both.applied_to(charge)


@pytest.mark.parametrize(
    ("steps", "ends_at"),
    [
        (("20", "=90"), 80),
        (("=90", "20"), 70),
        (("20", "30", "=60"), 50),
        (("20", "30", "=40"), 40),
        (("20", "=60", "30"), 30),
        (("20", "=60", "30", "=50"), 30),
        (("20", "=60", "30", "=20"), 20),
        (("20", "=60", "30", "=100"), 50),
        (("=60", "20", "=100"), 80),
        (("20", "=90", "10", "=100"), 70),
        (("20", "=120", "10", "=110", "=105"), 85),
    ],
)
def test_goodwills_and_reductions_lessen_each_other_in_their_order(steps: tuple[str, ...], ends_at: int) -> None:
    """A number is goodwill on September's invoice, =60 a new price, whose reduction or increase is issued."""
    invoice = september()
    period = OCTOBER
    for step in steps:
        if step.startswith("="):
            reprice(step[1:])
            close_and_issue(invoice.account, period)
            period = period.following
        else:
            give(invoice, step)
    close_and_issue(invoice.account, period)
    assert charged(invoice.account) == Decimal(ends_at)
    assert drafts_of(invoice.account) == []
    assert findings(SEPTEMBER) == []


# --- What invoices of version 1 gave back -----------------------------------------------------------------------------


def given_back_in_october(amount: str = "-40") -> Invoice:
    """September's invoice of 100.00, and October's of before, on which that much of September is given back."""
    invoice = september()
    line = invoice.lines.get()
    again = {"key": line.key, "period_start": SEPTEMBER.start, "amount": amount}
    with former_invoices():
        make_invoice(
            invoice.account.billing_profile,
            state=InvoiceState.ISSUED,
            number=2,
            period_start=OCTOBER.start,
            content_version=1,
            lines=({"amount": "70"}, again),
        )
    reprice("60")
    return invoice


def test_all_that_is_left_is_what_the_month_was_charged_on_all_documents() -> None:
    invoice = given_back_in_october()
    note = through_review(credit(invoice.pk, user=approver(), reason="an outage"))
    assert note.total == Decimal(-60)
    assert charged(invoice.account) == Decimal(70)
    with pytest.raises(InvoiceError, match="nothing left to credit"):
        credit(invoice.pk, user=approver(), reason="again")


def test_no_more_is_credited_than_the_month_was_charged_on_all_documents() -> None:
    invoice = given_back_in_october()
    line = invoice.lines.get()
    with pytest.raises(InvoiceError, match=r"60\.01 USD exceeds the 60\.00 left on 2025-09 on all doc"):
        credit(invoice.pk, user=approver(), reason="an outage", amounts={line.pk: Decimal("60.01")})
    assert not Invoice.objects.filter(kind=InvoiceKind.CREDIT_NOTE).exists()
    assert give(invoice, "60").total == Decimal(-60)


def test_no_more_is_taken_back_than_the_month_was_charged_on_all_documents() -> None:
    """What the later invoice gave back is taken back first."""
    invoice = given_back_in_october()
    october = Invoice.objects.get(period_start=OCTOBER.start)
    for line_ids in (None, [invoice.lines.get().pk]):
        with pytest.raises(InvoiceError, match=r"100\.00 USD exceeds the 60\.00 left on 2025-09"):
            credit_and_bill_again(invoice.pk, user=approver(), reason="wrong", line_ids=line_ids)
    draft = credit_and_bill_again(october.pk, user=approver(), reason="wrong")
    with pytest.raises(InvoiceError, match=r"exceeds the 60\.00"):
        credit_and_bill_again(invoice.pk, user=approver(), reason="wrong")
    through_review(draft)
    assert take_back(invoice).total == Decimal(-100)


@pytest.mark.parametrize("state", [InvoiceState.DRAFT, InvoiceState.APPROVED])
def test_a_note_of_before_gives_back_no_more_than_the_month_was_charged(state: InvoiceState) -> None:
    invoice = given_back_in_october()
    with former_invoices():
        note = make_invoice(
            invoice.account.billing_profile,
            kind=InvoiceKind.CREDIT_NOTE,
            state=state,
            original=invoice,
            credit_sequence=1,
            period_start=SEPTEMBER.start,
            content_version=1,
            lines=({"amount": "-100", "credited_line": invoice.lines.get()},),
        )
        digest = content_digest(Invoice.objects.get(pk=note.pk)) if note.content_digest else ""
        approved = digest if note.approved_digest else ""
        Invoice.objects.filter(pk=note.pk).update(content_digest=digest, approved_digest=approved)
    step = submit if state == InvoiceState.DRAFT else issue
    with pytest.raises(InvoiceError, match=r"100\.00 USD exceeds the 60\.00"):
        step(note.pk, user=preparer() if step is submit else approver())
    note.refresh_from_db()
    assert (note.state, note.label) == (state, "")


def test_a_reduction_leaves_what_is_on_its_way_to_be_credited() -> None:
    """60.00 are charged, of which a draft gives 30.00 back: a reduction of 60.00 waits for it."""
    invoice = given_back_in_october()
    draft = credit(invoice.pk, user=approver(), reason="slow", amounts={invoice.lines.get().pk: Decimal(30)})
    reprice("0")
    close_month(NOVEMBER, account=invoice.account)
    assert not Invoice.objects.filter(credit_kind=CreditKind.REDUCTION).exists()
    through_review(draft)
    close_and_issue(invoice.account, NOVEMBER)
    assert charged(invoice.account) == Decimal(70)
